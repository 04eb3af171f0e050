//! `make proto`: writes the committed code of the wire contracts.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    eastway_tests::protogen::generate(&eastway_tests::protogen::root().join("proto/src/gen"))
}
