//! The image of the igc program, made by the engine without building anything: the program that runs, and where it is not
//! static its loader and libraries, as they are on this machine.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tar::{Builder, EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::{
    child::{Call, ChildError, Programs},
    engine::{Engine, EngineError, MADE},
};

/// Where the program is inside the image.
const ENTRYPOINT: &str = "bin/igc";
/// Where its libraries are; the loader is where the program asks for it.
const LIBRARIES: &str = "lib/igc";

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{} cannot run in a container: {what}; name an image that has the program with --igc-image", path.display()
    )]
    NotForContainers { path: PathBuf, what: String },
    #[error("the image cannot be put together: {0}")]
    Archive(io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Call(#[from] ChildError),
}

/// Makes the image of an igc program, or finds the one that was made of the same files: its reference.
pub async fn of_program(
    engine: &Engine,
    programs: &Programs,
    program: &Path,
    cancel: &CancellationToken,
) -> Result<String, ImageError> {
    let files = files(programs, program, cancel).await?;
    let mut hasher = DefaultHasher::new();
    for (name, content) in &files {
        hasher.write(name.as_bytes());
        hasher.write(content);
    }
    let reference = format!("igc/igc:{:016x}", hasher.finish());
    if !engine.look_up(std::slice::from_ref(&reference), cancel).await?.have.is_empty() {
        return Ok(reference);
    }
    let folder = tempfile::tempdir().map_err(ImageError::Archive)?;
    let archive = folder.path().join("image.tar");
    write_archive(&archive, &files).map_err(ImageError::Archive)?;
    let changes = [
        format!("ENTRYPOINT [\"/{ENTRYPOINT}\"]"),
        format!("ENV LD_LIBRARY_PATH=/{LIBRARIES}"),
        format!("LABEL {MADE}"),
        "USER 65532:65532".to_owned(),
    ];
    let mut import = vec!["import".to_owned()];
    import.extend(changes.into_iter().flat_map(|change| ["--change".to_owned(), change]));
    import.extend([archive.display().to_string(), reference.clone()]);
    engine.call(import, Duration::from_secs(120), cancel).await?;
    Ok(reference)
}

/// The files of the image by their names in it.
async fn files(
    programs: &Programs,
    program: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let unfit = |what: String| ImageError::NotForContainers { path: program.to_owned(), what };
    let content = read(program)?;
    let loader = loader(&content).map_err(|what| unfit(what.to_owned()))?;
    let mut files = vec![(ENTRYPOINT.to_owned(), content)];
    let Some(loader) = loader else { return Ok(files) };
    files.push((loader.trim_start_matches('/').to_owned(), read(Path::new(&loader))?));
    let listed = Call::new(&loader).arg("--list").arg(program).run(programs, cancel).await?;
    for (name, path) in libraries(&listed.stdout).map_err(unfit)? {
        files.push((format!("{LIBRARIES}/{name}"), read(Path::new(path))?));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::File { path: path.to_owned(), source })
}

/// The libraries in what a loader lists, as `NAME => PATH (ADDRESS)`, and where they are. The kernel's own has no path; the
/// loader itself has no arrow, or a path for a name.
fn libraries(listed: &str) -> Result<Vec<(&str, &str)>, String> {
    let lines = listed.lines().filter_map(|line| line.trim().split_once(" => "));
    lines
        .filter(|(name, _)| !name.contains('/'))
        .map(|(name, found)| match found.rsplit_once(" (") {
            Some((path, _)) if path.starts_with('/') => Ok((name, path)),
            _ => Err(format!("its library {name} is {found}")),
        })
        .collect()
}

/// The loader that a 64-bit program for Linux asks for; a static one asks for none.
fn loader(elf: &[u8]) -> Result<Option<String>, &'static str> {
    const ENDS_EARLY: &str = "it is an ELF file that ends early";
    let u16_at = |at: usize| elf.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let u64_at = |at: usize| {
        let bytes = elf.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if !elf.starts_with(b"\x7fELF") {
        return Err("it is no program for Linux (no ELF file)");
    }
    if elf.get(4) != Some(&2) || elf.get(5) != Some(&1) {
        return Err("it is not for 64 bits, low byte first");
    }
    let (start, size, count) = match (u64_at(32), u16_at(54), u16_at(56)) {
        (Some(start), Some(size), Some(count)) => (start, size, count),
        _ => return Err(ENDS_EARLY),
    };
    for header in 0..count {
        let at = size.checked_mul(header).and_then(|offset| offset.checked_add(start)).ok_or(ENDS_EARLY)?;
        let kind = elf.get(at..).and_then(|header| header.get(..4)).ok_or(ENDS_EARLY)?;
        const INTERPRETER: [u8; 4] = [3, 0, 0, 0];
        if kind == INTERPRETER {
            let text = u64_at(at + 8).zip(u64_at(at + 32)).and_then(|(from, length)| {
                let path = elf.get(from..from.checked_add(length)?)?;
                std::str::from_utf8(path.strip_suffix(b"\0")?).ok()
            });
            let path = text.filter(|path| path.starts_with('/')).ok_or("it names no loader where it has to")?;
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}

/// A tar archive of the image's files with the folders that they are in, and a folder for temporary ones.
fn write_archive(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut archive = Builder::new(File::create(path)?);
    let mut add = |name: &str, mode: u32, kind: EntryType, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content)
    };
    add("tmp/", 0o1777, EntryType::Directory, &[])?;
    let folders = files.iter().flat_map(|(name, _)| name.match_indices('/').map(|(at, _)| &name[..=at]));
    for folder in folders.collect::<BTreeSet<_>>() {
        add(folder, 0o755, EntryType::Directory, &[])?;
    }
    for (name, content) in files {
        add(name, 0o755, EntryType::Regular, content)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::programs::fakes::Fakes;

    /// The beginning of a 64-bit ELF file with program headers of these kinds; those of an interpreter name the same one.
    fn elf(kinds: &[u8]) -> Vec<u8> {
        const LOADER: &[u8] = b"/lib64/ld.so\0";
        let end = 64 + 56 * kinds.len();
        let mut file = vec![0; end];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(kinds.len()).unwrap();
        for (at, kind) in kinds.iter().enumerate() {
            let header = &mut file[64 + 56 * at..][..56];
            header[0] = *kind;
            header[8..16].copy_from_slice(&u64::try_from(end).unwrap().to_le_bytes());
            header[32] = u8::try_from(LOADER.len()).unwrap();
        }
        file.extend(LOADER);
        file
    }

    #[rstest]
    #[case::static_program(elf(&[1, 1, 4]), Ok(None))]
    #[case::dynamic(elf(&[6, 3, 1]), Ok(Some("/lib64/ld.so")))]
    #[case::script(b"#!/bin/sh\n".to_vec(), Err("it is no program for Linux (no ELF file)"))]
    #[case::macos(b"\xcf\xfa\xed\xfe\x07\0\0\x01".to_vec(), Err("it is no program for Linux (no ELF file)"))]
    #[case::empty(vec![], Err("it is no program for Linux (no ELF file)"))]
    #[case::bits_32(b"\x7fELF\x01\x01".to_vec(), Err("it is not for 64 bits, low byte first"))]
    #[case::cut_off(elf(&[1, 1])[..122].to_vec(), Err("it is an ELF file that ends early"))]
    #[case::cut_off_header(elf(&[1])[..20].to_vec(), Err("it is an ELF file that ends early"))]
    #[case::loader_cut_off(elf(&[3])[..122].to_vec(), Err("it names no loader where it has to"))]
    fn loaders(#[case] file: Vec<u8>, #[case] expected: Result<Option<&str>, &str>) {
        assert_eq!(loader(&file), expected.map(|path| path.map(str::to_owned)));
    }

    #[rstest]
    #[case::glibc(
        "\tlinux-vdso.so.1 (0x7f1)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f2)\n\t/lib64/ld.so (0x7f3)\n",
        Ok(vec![("libm.so.6", "/lib/x86_64-linux-gnu/libm.so.6")])
    )]
    #[case::loader_from_elsewhere("\t/lib64/ld.so => /tmp/lib64/ld.so (0x7f3)\n", Ok(vec![]))]
    #[case::nothing("\tstatically linked\n", Ok(vec![]))]
    #[case::missing("\tlibm.so.6 => not found\n", Err("its library libm.so.6 is not found".to_owned()))]
    fn listed(#[case] text: &str, #[case] expected: Result<Vec<(&str, &str)>, String>) {
        assert_eq!(libraries(text), expected);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            _ = loader(&[b"\x7fELF\x02\x01".to_vec(), tail].concat());
        }
    }

    /// This test's own program, unpacked from its archive: it runs, and takes nothing from this machine.
    #[tokio::test]
    async fn a_program_runs_on_what_its_image_has() {
        let folder = tempfile::tempdir().unwrap();
        let (programs, cancel) = (Programs::from_env(), CancellationToken::new());
        let files = files(&programs, &std::env::current_exe().unwrap(), &cancel).await.unwrap();
        let archive = folder.path().join("image.tar");
        write_archive(&archive, &files).unwrap();
        let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder.path()).output().unwrap();
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        let at = |name: &str| folder.path().join(name.trim_start_matches('/'));
        let Some(loader) = loader(&files[0].1).unwrap() else { return };
        let run = |words: &[&str]| {
            let mut command = Command::new(at(&loader));
            let said = command.env("LD_LIBRARY_PATH", at(LIBRARIES)).args(words).output().unwrap();
            assert!(said.status.success(), "{said:?}");
            String::from_utf8(said.stdout).unwrap()
        };
        let program = at(ENTRYPOINT);
        let program = program.to_str().unwrap();
        assert!(run(&[program, "--list"]).contains("programs::image::tests::loaders"));
        let listed = run(&["--list", program]);
        let paths: Vec<&str> = libraries(&listed).unwrap().into_iter().map(|(_, path)| path).collect();
        assert!(!paths.is_empty() && paths.iter().all(|path| Path::new(path).starts_with(folder.path())), "{listed}");
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        write_archive(&archive, &[(ENTRYPOINT.to_owned(), vec![7; 1000]), ("lib64/ld.so".to_owned(), vec![8])])
            .unwrap();
        let listed = Command::new("tar").arg("-tvf").arg(&archive).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let listed = String::from_utf8(listed.stdout).unwrap();
        let of = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", words[0], words[words.len() - 1])
        };
        let lines: Vec<String> = listed.lines().map(of).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        drwxrwxrwt tmp/
        drwxr-xr-x bin/
        drwxr-xr-x lib64/
        -rwxr-xr-x bin/igc
        -rwxr-xr-x lib64/ld.so
        ");
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
        let programs = fakes.programs();
        let engine = Engine::find(&programs, &cancel).await.unwrap();
        let program = fakes.path().join("igc");
        fs::write(&program, elf(&[1])).unwrap();
        let first = of_program(&engine, &programs, &program, &cancel).await.unwrap();
        assert_eq!(of_program(&engine, &programs, &program, &cancel).await.unwrap(), first);
        let imports: Vec<String> = fakes.calls().into_iter().filter(|call| call.contains("import")).collect();
        let [import] = &imports[..] else { panic!("{imports:?}") };
        assert!(
            import.contains(
                "--change ENTRYPOINT [\"/bin/igc\"] --change ENV LD_LIBRARY_PATH=/lib/igc --change LABEL igc.dev/made=1"
            ) && import.ends_with(&first),
            "{import}"
        );

        fs::write(&program, [elf(&[1]), vec![1]].concat()).unwrap();
        assert_ne!(
            of_program(&engine, &programs, &program, &cancel).await.unwrap(),
            first,
            "another program is another image"
        );
        fs::write(&program, "#!/bin/sh").unwrap();
        let error = of_program(&engine, &programs, &program, &cancel)
            .await
            .unwrap_err()
            .to_string()
            .replace(&program.display().to_string(), "IGC");
        insta::assert_snapshot!(error, @"IGC cannot run in a container: it is no program for Linux (no ELF file); name an image that has the program with --igc-image");
    }
}
