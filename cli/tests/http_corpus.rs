//! Inputs that the fuzzer has found for the HTTP part of `pagewire serve` (`fuzz/README.md`).

mod http;

#[test]
fn the_kept_corpus() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/http");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        http::exercise(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus");
}
