use super::*;

fn run(text: &str) -> String {
    let mut counts = Counts::default();
    redact_text(&SnapshotKey::new([7; 32]), text, &mut counts).expect("text")
}

#[test]
fn a_password_goes_and_its_surroundings_stay() {
    let out = run("user=bob password=hunter2 port=5432");
    assert!(out.starts_with("user=bob password=[R:password:"), "{out}");
    assert!(out.ends_with("] port=5432"), "{out}");
}
