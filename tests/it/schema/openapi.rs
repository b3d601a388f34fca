//! The committed OpenAPI document is the one that the routes make. `UPDATE_OPENAPI=1` writes it.

use std::path::Path;

#[test]
fn the_committed_document_is_the_one_that_runs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let text = cursus::http::openapi_text();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == committed,
        "the API has changed: run this test with UPDATE_OPENAPI=1 and commit openapi/openapi.json"
    );
}
