//! Tensors that the oracles of this suite compute with: f32, row by row, each operation in its plainest form. They share no
//! code with programs and their kernels.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Add, Div, Mul, Sub};
use std::path::Path;

use faer::Mat;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Says which tensors do not fit together.
#[derive(Debug)]
pub struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operation gives.
pub type Result<T> = std::result::Result<T, Misfit>;

fn misfit<T>(what: impl Into<String>) -> Result<T> {
    Err(Misfit(what.into()))
}

/// Sizes of a tensor, from one number, a tuple or a list.
pub struct Sizes(Vec<usize>);

impl From<usize> for Sizes {
    fn from(n: usize) -> Self {
        Self(vec![n])
    }
}
impl From<(usize, usize)> for Sizes {
    fn from((a, b): (usize, usize)) -> Self {
        Self(vec![a, b])
    }
}
impl From<(usize, usize, usize)> for Sizes {
    fn from((a, b, c): (usize, usize, usize)) -> Self {
        Self(vec![a, b, c])
    }
}
impl From<(usize, usize, usize, usize)> for Sizes {
    fn from((a, b, c, d): (usize, usize, usize, usize)) -> Self {
        Self(vec![a, b, c, d])
    }
}
impl From<&[usize]> for Sizes {
    fn from(sizes: &[usize]) -> Self {
        Self(sizes.to_vec())
    }
}
impl From<Vec<usize>> for Sizes {
    fn from(sizes: Vec<usize>) -> Self {
        Self(sizes)
    }
}

/// A tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    sizes: Vec<usize>,
    data: Vec<f32>,
}

/// Elements from one index of each axis to the next.
fn steps(sizes: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; sizes.len()];
    for i in (1..sizes.len()).rev() {
        steps[i - 1] = steps[i] * sizes[i];
    }
    steps
}

impl Tensor {
    pub fn from_vec(data: Vec<f32>, sizes: impl Into<Sizes>) -> Result<Self> {
        let Sizes(sizes) = sizes.into();
        if sizes.iter().product::<usize>() != data.len() {
            return misfit(format!("{} numbers are not {sizes:?}", data.len()));
        }
        Ok(Self { sizes, data })
    }

    pub fn new(rows: Vec<Vec<f32>>) -> Result<Self> {
        let sizes = (rows.len(), rows.first().map_or(0, Vec::len));
        Self::from_vec(rows.concat(), sizes)
    }

    pub fn zeros(sizes: impl Into<Sizes>) -> Self {
        let Sizes(sizes) = sizes.into();
        let data = vec![0.0; sizes.iter().product()];
        Self { sizes, data }
    }

    pub fn zeros_like(&self) -> Result<Self> {
        Ok(Self::zeros(self.dims()))
    }

    pub fn eye(n: usize) -> Self {
        let mut made = Self::zeros((n, n));
        made.data.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
        made
    }

    pub fn dims(&self) -> &[usize] {
        &self.sizes
    }

    pub fn dim(&self, axis: usize) -> Result<usize> {
        let size = self.sizes.get(axis).copied();
        size.map_or_else(|| misfit(format!("no axis {axis} in {:?}", self.sizes)), Ok)
    }

    fn sizes<const N: usize>(&self) -> Result<[usize; N]> {
        let sizes = self.sizes.as_slice().try_into();
        sizes.or_else(|_| misfit(format!("{:?} has not {N} axes", self.sizes)))
    }

    pub fn dims1(&self) -> Result<usize> {
        self.sizes().map(|[a]| a)
    }

    pub fn dims2(&self) -> Result<(usize, usize)> {
        self.sizes().map(|[a, b]| (a, b))
    }

    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        self.sizes().map(|[a, b, c]| (a, b, c))
    }

    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        self.sizes().map(|[a, b, c, d]| (a, b, c, d))
    }

    /// All elements.
    pub fn numbers(&self) -> &[f32] {
        &self.data
    }

    /// All elements, to be changed.
    pub fn numbers_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    pub fn elem_count(&self) -> usize {
        self.data.len()
    }

    pub fn to_vec1(&self) -> Result<Vec<f32>> {
        self.dims1().map(|_| self.data.clone())
    }

    pub fn to_vec2(&self) -> Result<Vec<Vec<f32>>> {
        let (_, width) = self.dims2()?;
        Ok(self.data.chunks(width).map(<[f32]>::to_vec).collect())
    }

    pub fn to_scalar(&self) -> Result<f32> {
        match self.data.as_slice() {
            [x] => Ok(*x),
            _ => misfit(format!("{:?} is no number", self.sizes)),
        }
    }

    pub fn reshape(&self, sizes: impl Into<Sizes>) -> Result<Self> {
        Self::from_vec(self.data.clone(), sizes)
    }

    pub fn flatten_all(&self) -> Result<Self> {
        self.reshape(self.data.len())
    }

    /// One axis of those from `first` to `last`.
    pub fn flatten(&self, first: usize, last: usize) -> Result<Self> {
        let mut sizes = self.sizes.clone();
        let size = sizes.splice(first..=last, []).product();
        sizes.insert(first, size);
        self.reshape(sizes)
    }

    pub fn squeeze(&self, axis: usize) -> Result<Self> {
        let mut sizes = self.sizes.clone();
        sizes.remove(axis);
        self.reshape(sizes)
    }

    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let mut sizes = self.sizes.clone();
        sizes.insert(axis, 1);
        self.reshape(sizes)
    }

    /// Axis `order[i]` becomes axis `i`.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        let old = steps(&self.sizes);
        let sizes: Vec<usize> = order.iter().map(|&axis| self.sizes[axis]).collect();
        let new = steps(&sizes);
        let mut made = Self::zeros(sizes.as_slice());
        for (at, x) in made.data.iter_mut().enumerate() {
            let axes = order.iter().zip(&new).zip(&sizes);
            let from: usize = axes
                .map(|((axis, step), n)| at / step % n * old[*axis])
                .sum();
            *x = self.data[from];
        }
        Ok(made)
    }

    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let mut order: Vec<usize> = (0..self.sizes.len()).collect();
        order.swap(a, b);
        self.permute(&order)
    }

    pub fn t(&self) -> Result<Self> {
        let (rows, columns) = self.dims2()?;
        let column = |j| self.data.iter().skip(j).step_by(columns);
        let data = (0..columns).flat_map(column).copied().collect();
        Self::from_vec(data, (columns, rows))
    }

    /// `count` indices of an axis from `start` on.
    pub fn narrow(&self, axis: usize, start: usize, count: usize) -> Result<Self> {
        if start + count > self.dim(axis)? {
            return misfit(format!(
                "{start} + {count} of axis {axis} of {:?}",
                self.sizes
            ));
        }
        let step = steps(&self.sizes)[axis];
        let mut sizes = self.sizes.clone();
        sizes[axis] = count;
        let outer = self.data.chunks(step * self.sizes[axis]);
        let data = outer.flat_map(|part| &part[start * step..(start + count) * step]);
        Self::from_vec(data.copied().collect(), sizes)
    }

    pub fn get(&self, i: usize) -> Result<Self> {
        self.narrow(0, i, 1)?.squeeze(0)
    }

    pub fn cat(parts: &[Self], axis: usize) -> Result<Self> {
        let mut sizes = parts[0].sizes.clone();
        sizes[axis] = parts.iter().map(|part| part.sizes[axis]).sum();
        let outer: usize = sizes[..axis].iter().product();
        let mut data = Vec::new();
        for i in 0..outer {
            for part in parts {
                let each = part.data.len() / outer;
                data.extend_from_slice(&part.data[i * each..(i + 1) * each]);
            }
        }
        Self::from_vec(data, sizes)
    }

    /// The matrix so many times below and beside itself.
    pub fn repeat(&self, (down, across): (usize, usize)) -> Result<Self> {
        let row = Self::cat(&vec![self.clone(); across], 1)?;
        Self::cat(&vec![row; down], 0)
    }

    /// Products of matrices, of as many on both sides or of one on one side.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let of = |t: &Self| match t.sizes[..] {
            [ref batch @ .., m, n] => Ok((batch.to_vec(), m, n)),
            _ => misfit(format!("{:?} is no matrix", t.sizes)),
        };
        let ((batch, m, k), (other_batch, depth, n)) = (of(self)?, of(other)?);
        let fits = batch == other_batch || batch.is_empty() || other_batch.is_empty();
        if k != depth || !fits {
            return misfit(format!("{:?} times {:?}", self.sizes, other.sizes));
        }
        let batch = if batch.is_empty() { other_batch } else { batch };
        let mut data = Vec::new();
        for i in 0..batch.iter().product() {
            let left = &self.data[i * m * k % self.data.len()..][..m * k];
            let right = &other.data[i * k * n % other.data.len()..][..k * n];
            data.extend(product((left, right), (m, k, n)));
        }
        Self::from_vec(data, [batch, vec![m, n]].concat())
    }

    /// Element by element, where an axis of size 1 or a missing one in front goes with any size.
    fn broadcast(&self, other: &Self, of: impl Fn(f32, f32) -> f32) -> Result<Self> {
        let axes = self.sizes.len().max(other.sizes.len());
        let whole = |t: &Self| [vec![1; axes - t.sizes.len()], t.sizes.clone()].concat();
        let (a, b) = (whole(self), whole(other));
        if a.iter().zip(&b).any(|(a, b)| a != b && *a != 1 && *b != 1) {
            return misfit(format!("{:?} beside {:?}", self.sizes, other.sizes));
        }
        let sizes: Vec<usize> = a.iter().zip(&b).map(|(a, b)| *a.max(b)).collect();
        let (own, of_a, of_b) = (steps(&sizes), steps(&a), steps(&b));
        let place = |at: usize, t: &[usize], steps: &[usize]| -> usize {
            let axis = |i: usize| at / own[i] % sizes[i] % t[i] * steps[i];
            (0..axes).map(axis).sum()
        };
        let data = (0..sizes.iter().product()).map(|at| {
            let (x, y) = (place(at, &a, &of_a), place(at, &b, &of_b));
            of(self.data[x], other.data[y])
        });
        Self::from_vec(data.collect(), sizes.as_slice())
    }

    pub fn broadcast_add(&self, other: &Self) -> Result<Self> {
        self.broadcast(other, |a, b| a + b)
    }

    pub fn broadcast_sub(&self, other: &Self) -> Result<Self> {
        self.broadcast(other, |a, b| a - b)
    }

    pub fn broadcast_mul(&self, other: &Self) -> Result<Self> {
        self.broadcast(other, |a, b| a * b)
    }

    pub fn broadcast_div(&self, other: &Self) -> Result<Self> {
        self.broadcast(other, |a, b| a / b)
    }

    /// The same of tensors of one shape.
    fn beside(&self, other: &Self, of: impl Fn(f32, f32) -> f32) -> Result<Self> {
        match self.sizes == other.sizes {
            true => self.broadcast(other, of),
            false => misfit(format!("{:?} beside {:?}", self.sizes, other.sizes)),
        }
    }

    pub fn map(&self, of: impl Fn(f32) -> f32) -> Self {
        Self {
            sizes: self.sizes.clone(),
            data: self.data.iter().map(|&x| of(x)).collect(),
        }
    }

    pub fn neg(&self) -> Result<Self> {
        Ok(self.map(|x| -x))
    }

    pub fn recip(&self) -> Result<Self> {
        Ok(self.map(f32::recip))
    }

    pub fn tanh(&self) -> Result<Self> {
        Ok(self.map(f32::tanh))
    }

    pub fn maximum(&self, least: f32) -> Result<Self> {
        Ok(self.map(|x| x.max(least)))
    }

    pub fn abs(&self) -> Result<Self> {
        Ok(self.map(f32::abs))
    }

    pub fn sqr(&self) -> Result<Self> {
        Ok(self.map(|x| x * x))
    }

    pub fn sqrt(&self) -> Result<Self> {
        Ok(self.map(f32::sqrt))
    }

    pub fn exp(&self) -> Result<Self> {
        Ok(self.map(f32::exp))
    }

    pub fn relu(&self) -> Result<Self> {
        Ok(self.map(|x| x.max(0.0)))
    }

    /// One number for each line along an axis, which stays with size 1.
    fn fold(&self, axis: usize, first: f32, of: impl Fn(f32, f32) -> f32) -> Result<Self> {
        let (size, step) = (self.dim(axis)?, steps(&self.sizes)[axis]);
        let mut sizes = self.sizes.clone();
        sizes[axis] = 1;
        let mut made = Self::zeros(sizes);
        for (at, x) in made.data.iter_mut().enumerate() {
            let from = at / step * step * size + at % step;
            let line = (0..size).map(|i| self.data[from + i * step]);
            *x = line.fold(first, &of);
        }
        Ok(made)
    }

    pub fn sum_keepdim(&self, axis: usize) -> Result<Self> {
        self.fold(axis, 0.0, |a, b| a + b)
    }

    pub fn sum(&self, axis: usize) -> Result<Self> {
        self.sum_keepdim(axis)?.squeeze(axis)
    }

    pub fn sum_all(&self) -> Result<Self> {
        Self::from_vec(vec![self.data.iter().sum()], vec![])
    }

    pub fn max(&self, axis: usize) -> Result<Self> {
        self.fold(axis, f32::MIN, f32::max)?.squeeze(axis)
    }
}

/// A product of two matrices by faer, in f64, which is fast in a test that is not optimised.
fn product((a, b): (&[f32], &[f32]), (m, k, n): (usize, usize, usize)) -> Vec<f32> {
    let a = Mat::from_fn(m, k, |i, j| f64::from(a[i * k + j]));
    let b = Mat::from_fn(k, n, |i, j| f64::from(b[i * n + j]));
    let made = peftc::linalg::times(a.as_ref(), b.as_ref());
    let row = |i| made.row(i).iter().map(|&x| x as f32);
    (0..m).flat_map(row).collect()
}

/// An operator between tensors of one shape, and with a number.
macro_rules! operator {
    ($trait:ident, $name:ident, $of:expr) => {
        impl<T: std::borrow::Borrow<Tensor>> $trait<T> for &Tensor {
            type Output = Result<Tensor>;
            fn $name(self, other: T) -> Result<Tensor> {
                self.beside(other.borrow(), $of)
            }
        }
        impl<T: std::borrow::Borrow<Tensor>> $trait<T> for Tensor {
            type Output = Result<Tensor>;
            fn $name(self, other: T) -> Result<Tensor> {
                self.beside(other.borrow(), $of)
            }
        }
        impl $trait<f64> for &Tensor {
            type Output = Result<Tensor>;
            fn $name(self, other: f64) -> Result<Tensor> {
                Ok(self.map(|x| $of(x, other as f32)))
            }
        }
        impl $trait<f64> for Tensor {
            type Output = Result<Tensor>;
            fn $name(self, other: f64) -> Result<Tensor> {
                Ok(self.map(|x| $of(x, other as f32)))
            }
        }
    };
}
operator!(Add, add, f32::add);
operator!(Sub, sub, f32::sub);
operator!(Mul, mul, f32::mul);
operator!(Div, div, f32::div);

/// The tensors of a file.
pub fn load(path: impl AsRef<Path>) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(path).expect("a file of tensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let one = |(name, view): (String, TensorView<'_>)| {
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => numbers(bytes, f32::from_le_bytes),
            Dtype::F16 => numbers(bytes, |x| half::f16::from_le_bytes(x).to_f32()),
            Dtype::BF16 => numbers(bytes, |x| half::bf16::from_le_bytes(x).to_f32()),
            Dtype::I32 => numbers(bytes, |x| i32::from_le_bytes(x) as f32),
            Dtype::I64 => numbers(bytes, |x| i64::from_le_bytes(x) as f32),
            other => panic!("{name} is stored as {other:?}"),
        };
        let tensor = Tensor::from_vec(data, view.shape()).expect("fits");
        (name, tensor)
    };
    file.tensors().into_iter().map(one).collect()
}

fn numbers<const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let all = bytes.as_chunks::<N>().0.iter();
    all.map(|&x| of(x)).collect()
}

/// Writes tensors in f32.
pub fn save(tensors: &HashMap<String, Tensor>, path: impl AsRef<Path>) {
    let views = tensors.iter().map(|(name, tensor)| {
        let bytes = bytemuck::cast_slice(&tensor.data);
        let view = TensorView::new(Dtype::F32, tensor.sizes.clone(), bytes);
        (name, view.expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, path.as_ref()).expect("written");
}
