use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorView;
use half::{bf16, f16};

use super::*;

fn bundled() -> Checkpoint {
    Checkpoint::open(Path::new("recipes/reviews-mini")).unwrap()
}

fn save(path: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    ::safetensors::serialize_to_file([(name, view)], None, path).unwrap();
}

#[test]
fn the_first_candidate_present_is_read_and_widened_exactly() {
    let c = bundled();
    let name = "bert.encoder.layer.0.attention.self.key.weight".to_owned();
    let (dtype, shape) = c.info(&name).unwrap();
    assert_eq!(
        (dtype, shape),
        (&Kind::Stored(DType::F16.into()), [384, 384].as_slice())
    );
    let t = c
        .read(&["absent".into(), name.clone()], &[384, 384], DType::F32)
        .unwrap()
        .unwrap();
    assert_eq!(t.bytes(), 4 * 384 * 384);
    let half = c
        .read(std::slice::from_ref(&name), &[384, 384], DType::F16)
        .unwrap()
        .unwrap();
    let raw = c.raw(&name).unwrap();
    for ((x, h), b) in t
        .slice::<f32>()
        .unwrap()
        .iter()
        .zip(half.slice::<f16>().unwrap())
        .zip(raw.chunks(2))
    {
        assert_eq!(h.to_le_bytes(), b);
        assert_eq!(*x, h.to_f32());
    }
    assert!(
        c.read(&["absent".into()], &[1], DType::F32)
            .unwrap()
            .is_none()
    );
    assert!(c.names().count() > 50);
}

#[test]
fn a_wrong_shape_is_an_error_that_shows_both() {
    let e = bundled()
        .read(
            &["bert.embeddings.LayerNorm.bias".into()],
            &[385],
            DType::F32,
        )
        .unwrap_err()
        .to_string();
    assert!(e.contains("[384]") && e.contains("[385]"), "{e}");
}

#[test]
fn every_pair_of_dtypes_rounds_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let x = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
    save(&path, "x", Dtype::F64, &[1], &x.to_le_bytes());
    let c = Checkpoint::open(&path).unwrap();
    let read = |d| c.read(&["x".into()], &[1], d).unwrap().unwrap();
    assert_eq!(read(DType::F64).slice::<f64>().unwrap(), [x]);
    assert_eq!(read(DType::F32).slice::<f32>().unwrap(), [x as f32]);
    assert_eq!(
        read(DType::BF16).slice::<bf16>().unwrap(),
        [bf16::from_f64(x)]
    );
    assert!(c.read(&["x".into()], &[1], DType::U32).is_err());
}

#[test]
fn integers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    save(&path, "x", Dtype::I64, &[1], &7i64.to_le_bytes());
    let e = Checkpoint::open(&path)
        .unwrap()
        .read(&["x".into()], &[1], DType::F32)
        .unwrap_err();
    assert!(e.to_string().contains("I64"), "{e}");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    save(&path, "x", Dtype::F32, &[2], &[0; 8]);
    let good = std::fs::read(&path).unwrap();
    for len in 0..good.len() {
        std::fs::write(&path, &good[..len]).unwrap();
        let e = Checkpoint::open(dir.path()).unwrap_err();
        assert_eq!(e.exit_code(), 1, "{len}");
    }
    for at in 0..good.len() - 8 {
        let mut bad = good.clone();
        bad[at] ^= 0x15;
        std::fs::write(&path, &bad).unwrap();
        if let Ok(c) = Checkpoint::open(dir.path()) {
            let _ = c.read(&["x".into()], &[2], DType::F32);
        }
    }
    std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert!(
        Checkpoint::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("git lfs pull")
    );
}

#[test]
fn shards_are_found_through_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    save(
        &dir.path().join("m-1.safetensors"),
        "x",
        Dtype::F32,
        &[1],
        &1f32.to_le_bytes(),
    );
    save(
        &dir.path().join("m-2.safetensors"),
        "y",
        Dtype::F32,
        &[1],
        &2f32.to_le_bytes(),
    );
    let open = |map: &str| {
        std::fs::write(&index, format!("{{\"weight_map\": {map}}}")).unwrap();
        Checkpoint::open(dir.path())
    };
    let c = open(r#"{"x": "m-1.safetensors", "y": "m-2.safetensors"}"#).unwrap();
    assert_eq!(c.names().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(
        c.read(&["y".into()], &[1], DType::F32)
            .unwrap()
            .unwrap()
            .slice::<f32>()
            .unwrap(),
        [2.0]
    );
    assert!(open(r#"{"x": "m-2.safetensors"}"#).is_err());
    assert!(
        open(r#"{"x": "../m-1.safetensors"}"#)
            .unwrap_err()
            .to_string()
            .contains("outside")
    );
    assert!(open(r#"{"x": "m-3.safetensors"}"#).is_err());
    assert!(open("3").is_err());
}

#[test]
fn what_is_missing_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        Checkpoint::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("model.safetensors")
    );
    assert!(
        Checkpoint::open(&dir.path().join("none"))
            .unwrap_err()
            .to_string()
            .contains("no such")
    );
    std::fs::write(dir.path().join("pytorch_model.bin"), b"x").unwrap();
    assert!(
        Checkpoint::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("convert")
    );
}
