//! Writes the seeds that are in order into `seeds/`: `cargo run -p mendix-fuzz --example seeds`.
//! Findings that were added there by hand stay.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (target, name, bytes) in mendix_fuzz::seeds() {
        fs::create_dir_all(folder.join(target))?;
        fs::write(folder.join(target).join(name), bytes)?;
    }
    Ok(())
}
