//! `make proto`: writes the committed code of the wire contracts, and the etcd client's contract.

use std::error::Error;
use std::fs;

use eastway_tests::protogen::{etcd_contract, generate, root};

fn main() -> Result<(), Box<dyn Error>> {
    let proto = root().join("proto");
    generate(&proto.join("src/gen"))?;

    let (current, contract) = etcd_contract()?;
    for entry in fs::read_dir(&proto)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "fds") {
            fs::remove_file(path)?;
        }
    }
    fs::write(proto.join(current), contract)?;
    Ok(())
}
