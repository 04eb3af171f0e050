//! scratch
fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("file");
    let mut s: eastway_simulation::Scenario =
        eastway_runtime::config::load(std::path::Path::new(&path)).unwrap_or_else(|e| panic!("{e}")).value;
    println!("{:?}", s.mistakes());
    let mut json = false;
    for a in args {
        if a == "json" { json = true } else { s.seed = a.parse().expect("seed") }
    }
    let t = std::time::Instant::now();
    let r = eastway_simulation::run(&s);
    if json { println!("{}", serde_json::to_string(&r).expect("json")); return; }
    println!("{}", eastway_simulation::table::text(&r));
    println!("{:?}", t.elapsed());
}
