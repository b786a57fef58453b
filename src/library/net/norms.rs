//! Norms of rows.

use super::{Init, Net, ParamKind, Site};
use crate::program::op::{Constant, Expand, LayerNorm, Over, RmsNorm};
use crate::program::{DType, Dim, Real, Value};

impl Net<'_> {
    /// Notes a norm among the sites.
    fn meet_norm(&mut self, site: &Site) {
        self.b.label(&site.path);
        if !self.aside {
            self.meet(site);
        }
    }

    /// Layer norm over the last axis of `[N, width]`.
    pub fn layer_norm(&mut self, site: &Site, x: Value, eps: f64) -> Value {
        self.meet_norm(site);
        let width = [site.output()];
        let gamma = self.module_param(site, "weight", &width, ParamKind::NormWeight);
        let beta = self.module_param(site, "bias", &width, ParamKind::NormBias);
        let eps = Real::new(eps);
        self.b.push(LayerNorm { eps }, &[x, gamma, beta])[0]
    }

    /// The same without a bias.
    pub fn layer_norm_unbiased(&mut self, site: &Site, x: Value, eps: f64) -> Value {
        self.meet_norm(site);
        let width = site.output();
        let gamma = self.module_param(site, "weight", &[width], ParamKind::NormWeight);
        let zero = Constant {
            value: Real::new(0.0),
            dtype: DType::F32,
        };
        let zero = self.b.push1(zero, &[]);
        let none = Expand {
            over: Over::All,
            shape: std::iter::once(Dim::from(width)).collect(),
            mean: false,
        };
        let none = self.b.push1(none, &[zero]);
        let eps = Real::new(eps);
        self.b.push(LayerNorm { eps }, &[x, gamma, none])[0]
    }

    /// Each row, or each run of so many columns as the norm is wide, over its root mean square, times the weight, or one
    /// more than it.
    pub fn rms_norm(&mut self, site: &Site, x: Value, eps: f64, plus_one: bool) -> Value {
        self.meet_norm(site);
        let kind = ParamKind::NormWeight;
        let fresh = if plus_one {
            Init::Constant(0.0)
        } else {
            kind.fresh()
        };
        let weight = self.module_param_from(site, "weight", &[site.output()], (kind, fresh));
        let eps = Real::new(eps);
        self.b.push1(RmsNorm { eps, plus_one }, &[x, weight])
    }
}
