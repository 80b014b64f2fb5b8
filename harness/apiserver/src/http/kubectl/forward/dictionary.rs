//! The dictionary that SPDY/3 compresses headers with: words that headers are made of (draft-mbelshe-httpbis-spdy-00,
//! section 2.6.10.1).

/// Names and values, each preceded by its length in the dictionary.
const WORDS: &str = concat!(
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|",
    "age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|",
    "content-length|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|",
    "host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|",
    "max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|",
    "transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|",
    "HTTP/1.1|url|public|set-cookie|keep-alive",
);

/// What follows: one more word with its length, and then values run together.
const REST: &str = concat!(
    "\0\0\0\u{6}origin",
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized",
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,",
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

/// Adler-32 of the dictionary, as streams that use it name it.
pub(super) const ID: u32 = 0xe3c6_a7c2;

pub(super) fn bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS.split('|') {
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(REST.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_one_that_streams_name() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in super::bytes() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, super::ID);
    }
}
