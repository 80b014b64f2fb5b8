//! The image of the igc program: one static file, made by the engine without building anything.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tar::{Builder, EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::{
    child::ChildError,
    engine::{Engine, EngineError, MADE},
};

/// Where the program is inside the image.
const ENTRYPOINT: &str = "bin/igc";

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the igc program {} cannot be read: {source}", path.display())]
    Program { path: PathBuf, source: io::Error },
    /// The file needs a loader, which an empty image does not have.
    #[error("{} is not a static program for Linux: {what}; build it with `--profile image --target x86_64-unknown-linux-gnu` and RUSTFLAGS='-C target-feature=+crt-static'", path.display())]
    NotStatic { path: PathBuf, what: &'static str },
    #[error("the image cannot be put together: {0}")]
    Archive(io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Call(#[from] ChildError),
}

/// Makes the image of a static igc program, or finds the one that was made of the same file: its reference.
pub async fn of_program(engine: &Engine, program: &Path, cancel: &CancellationToken) -> Result<String, ImageError> {
    let bytes = fs::read(program).map_err(|source| ImageError::Program { path: program.to_owned(), source })?;
    is_static(&bytes).map_err(|what| ImageError::NotStatic { path: program.to_owned(), what })?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    let reference = format!("igc/igc:{:016x}", hasher.finish());
    if !engine.look_up(std::slice::from_ref(&reference), cancel).await?.have.is_empty() {
        return Ok(reference);
    }
    let folder = tempfile::tempdir().map_err(ImageError::Archive)?;
    let archive = folder.path().join("image.tar");
    write_archive(&archive, &bytes).map_err(ImageError::Archive)?;
    let archive = archive.display().to_string();
    let entrypoint = format!("ENTRYPOINT [\"/{ENTRYPOINT}\"]");
    let label = format!("LABEL {MADE}");
    let import =
        ["import", "--change", &entrypoint, "--change", &label, "--change", "USER 65532:65532", &archive, &reference];
    engine.call(import, Duration::from_secs(120), cancel).await?;
    Ok(reference)
}

/// Whether a file is a 64-bit program for Linux on this kind of processor that names no loader.
fn is_static(elf: &[u8]) -> Result<(), &'static str> {
    let u16_at = |at: usize| elf.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let u64_at = |at: usize| {
        elf.get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
            .and_then(|v| usize::try_from(v).ok())
    };
    if !elf.starts_with(b"\x7fELF") {
        return Err("no ELF file");
    }
    if elf.get(4) != Some(&2) || elf.get(5) != Some(&1) {
        return Err("not 64 bits, low byte first");
    }
    let table = u64_at(32).zip(u16_at(54)).zip(u16_at(56));
    let Some(((start, size), count)) = table else { return Err("an ELF file that ends early") };
    for header in 0..count {
        let at = size.checked_mul(header).and_then(|offset| offset.checked_add(start));
        let kind = at.and_then(|at| elf.get(at..)?.get(..4)).ok_or("an ELF file that ends early")?;
        const INTERPRETER: [u8; 4] = [3, 0, 0, 0];
        if kind == INTERPRETER {
            return Err("it asks for a dynamic loader");
        }
    }
    Ok(())
}

/// A tar archive of the image's files: the program, and a folder for temporary ones.
fn write_archive(path: &Path, program: &[u8]) -> io::Result<()> {
    let mut archive = Builder::new(File::create(path)?);
    for (name, mode, kind, content) in [
        ("tmp/", 0o1777, EntryType::Directory, &[][..]),
        ("bin/", 0o755, EntryType::Directory, &[]),
        (ENTRYPOINT, 0o755, EntryType::Regular, program),
    ] {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rstest::rstest;

    use super::*;
    use crate::programs::fakes::Fakes;

    /// The beginning of a 64-bit ELF file with program headers of these kinds.
    fn elf(kinds: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 * kinds.len()];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(kinds.len()).unwrap();
        kinds.iter().enumerate().for_each(|(at, kind)| file[64 + 56 * at] = *kind);
        file
    }

    #[rstest]
    #[case::static_program(elf(&[1, 1, 4]), Ok(()))]
    #[case::dynamic(elf(&[6, 3, 1]), Err("it asks for a dynamic loader"))]
    #[case::script(b"#!/bin/sh\n".to_vec(), Err("no ELF file"))]
    #[case::empty(vec![], Err("no ELF file"))]
    #[case::cut_off(elf(&[1, 1])[..122].to_vec(), Err("an ELF file that ends early"))]
    #[case::cut_off_header(elf(&[1])[..20].to_vec(), Err("an ELF file that ends early"))]
    fn programs(#[case] file: Vec<u8>, #[case] expected: Result<(), &str>) {
        assert_eq!(is_static(&file), expected);
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        write_archive(&archive, &vec![7; 1000]).unwrap();
        let listed = Command::new("tar").arg("-tvf").arg(&archive).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((lines[0][0], lines[0].last()), ("drwxrwxrwt", Some(&"tmp/")));
        assert_eq!((lines[1][0], lines[1].last()), ("drwxr-xr-x", Some(&"bin/")));
        assert_eq!((lines[2][0], lines[2][2], lines[2].last()), ("-rwxr-xr-x", "1000", Some(&"bin/igc")));
    }

    /// Manifests that name the program work with the image of the Job as well.
    #[test]
    fn both_images_have_the_program_in_one_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert!(read("manifests/intents/llm-service.yaml").contains(&format!("command: [/{ENTRYPOINT}]")));
        assert!(read(".ci/Containerfile").contains(&format!(" /{ENTRYPOINT}\n")));
    }

    #[tokio::test]
    async fn it_is_made_once_for_a_file() {
        let fakes = Fakes::new();
        let made = fakes.path().join("made");
        let fakes = fakes.program(
            "docker",
            &format!("case $1 in info) echo '{{\"ServerVersion\":\"27\"}}';; images) [ ! -e {0} ] || cat {0};; import) for last; do :; done; echo $last > {0};; esac", made.display()),
        );
        let cancel = CancellationToken::new();
        let engine = Engine::find(&fakes.programs(), &cancel).await.unwrap();
        let program = fakes.path().join("igc");
        fs::write(&program, elf(&[1])).unwrap();
        let first = of_program(&engine, &program, &cancel).await.unwrap();
        assert_eq!(of_program(&engine, &program, &cancel).await.unwrap(), first);
        let imports: Vec<String> = fakes.calls().into_iter().filter(|call| call.contains("import")).collect();
        let [import] = &imports[..] else { panic!("{imports:?}") };
        assert!(
            import.contains("--change ENTRYPOINT [\"/bin/igc\"] --change LABEL igc.dev/made=1")
                && import.ends_with(&first),
            "{import}"
        );

        fs::write(&program, [elf(&[1]), vec![1]].concat()).unwrap();
        assert_ne!(of_program(&engine, &program, &cancel).await.unwrap(), first, "another program is another image");
        fs::write(&program, elf(&[3])).unwrap();
        let error = of_program(&engine, &program, &cancel)
            .await
            .unwrap_err()
            .to_string()
            .replace(&program.display().to_string(), "IGC");
        insta::assert_snapshot!(error, @"IGC is not a static program for Linux: it asks for a dynamic loader; build it with `--profile image --target x86_64-unknown-linux-gnu` and RUSTFLAGS='-C target-feature=+crt-static'");
    }
}
