//! Tests of safetensors files.

use super::*;
use crate::files::weights::TensorFile;
use half::{bf16, f16};
use proptest::prelude::*;

fn write(path: &Path, tensors: &[(&str, &Tensor)]) -> Result<(), RunError> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|(n, t)| TensorSpec::of(*n, t)).collect();
    write_tensors(path, &specs, Some(("format", "pt")), &mut |i, w| {
        w.write_all(bytes_of(tensors[i].1))
            .map_err(|e| durable::failed(path, "write", &e))
    })
}

#[test]
fn what_is_written_is_read_by_the_reference_reader_and_by_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let b = Tensor::new(vec![1.5_f32, -2.0, 3.0, 0.0, 7.0, 8.0], &[2, 3]);
    let a = Tensor::new(vec![bf16::from_f32(0.5); 3], &[3]);
    let h = Tensor::new(vec![f16::from_f32(0.25)], &[]);
    let e = Tensor::new(Vec::<f32>::new(), &[0, 4]);
    let u = Tensor::new(vec![1_u32, 2], &[2]);
    write(
        &path,
        &[("b", &b), ("a", &a), ("h", &h), ("e", &e), ("u", &u)],
    )
    .unwrap();

    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(length % 8, 0);
    let header = std::str::from_utf8(&bytes[8..8 + length as usize]).unwrap();
    assert!(
        header.starts_with(r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[3],"#),
        "{header}"
    );
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("b").unwrap().data(), bytes_of(&b));
    assert_eq!(reference.tensor("a").unwrap().shape(), [3]);

    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.names().len(), 5);
    for (name, tensor) in [("a", &a), ("b", &b), ("h", &h), ("e", &e), ("u", &u)] {
        let read = file.tensor(name).unwrap();
        assert_eq!(read.dims, tensor.dims);
        assert_eq!(bytes_of(&read), bytes_of(tensor), "{name}");
    }
    assert_eq!(file.get("a").unwrap().to_f32().unwrap(), [0.5; 3]);
    assert!(file.get("u").unwrap().to_f32().is_err());
    assert!(
        file.tensor("none")
            .unwrap_err()
            .to_string()
            .contains("`none`")
    );

    let again = dir.path().join("again.safetensors");
    write(
        &again,
        &[("b", &b), ("a", &a), ("h", &h), ("e", &e), ("u", &u)],
    )
    .unwrap();
    assert_eq!(std::fs::read(again).unwrap(), bytes);
}

#[test]
fn wrong_byte_counts_and_names_are_bugs_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![2],
    };
    for bytes in [7_usize, 9] {
        let result = write_tensors(&path, &[spec("x")], None, &mut |_, w| {
            w.write_all(&vec![0; bytes])
                .map_err(|e| RunError::bug(e.to_string()))
        });
        assert!(matches!(result, Err(RunError::Bug(_))));
    }
    let twice = write_tensors(&path, &[spec("x"), spec("x")], None, &mut |_, _| Ok(()));
    assert!(matches!(twice, Err(RunError::Bug(_))));
    let huge = TensorSpec {
        name: "x".into(),
        dtype: DType::F32,
        shape: vec![u64::MAX, 2],
    };
    assert!(matches!(
        write_tensors(&path, &[huge], None, &mut |_, _| Ok(())),
        Err(RunError::Bug(_))
    ));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_cut_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    write(&path, &[("x", &Tensor::new(vec![1.0_f32; 8], &[8]))]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 4, 8, 20, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(TensorFile::open(&path).is_err(), "{cut}");
    }
    assert!(TensorFile::open(&dir.path().join("none")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), header in "[\\[\\]{}:,\"a-z0-9_F]{0,80}") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g");
        let mut framed = (header.len() as u64).to_le_bytes().to_vec();
        framed.extend_from_slice(header.as_bytes());
        for content in [&bytes, &framed] {
            std::fs::write(&path, content).unwrap();
            if let Ok(file) = TensorFile::open(&path) {
                for name in file.names() {
                    let _ = file.tensor(&name);
                }
            }
        }
    }
}
