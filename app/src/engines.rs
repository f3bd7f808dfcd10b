//! The real machinery behind a document's ops.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use kinora_pipeline::control::click::{BoxPrompt, CandidateKind, ClickCut, ClickPoint, MaskCandidate};
use kinora_pipeline::control::mask;
use kinora_pipeline::control::salient::{Saliency, SaliencyError};
use kinora_pipeline::media::{Mask, Picture, resize, resize_mask};
use kinora_pipeline::nets::{U2Netp, U2NetpConfig};
use kinora_pipeline::store::model_source::{FolderModel, ModelSource};
use kinora_pipeline::systems::follow_your_click::embedded::Embedded;
use kinora_pipeline::systems::follow_your_click::{AnimateError, Animator};
use kinora_pipeline::workflow::ops::Candidate;
use kinora_pipeline::workflow::{Engines, MaskQuery, RunError};

use crate::embedded::{KINORA_MINI, U2NETP};

/// Bumped when click-cut answers differently.
const CLICK_VERSION: &str = "click-cut 1";

/// Models loaded once and shared by planning and running.
pub(crate) struct Machinery {
    device: Device,
    /// Where a model named by a folder is looked for.
    base: PathBuf,
    animators: Mutex<HashMap<String, Arc<Embedded>>>,
}

impl Machinery {
    pub(crate) fn new(device: Device, base: &Path) -> Self {
        Self { device, base: base.to_path_buf(), animators: Mutex::default() }
    }

    /// The model of that name, loaded on first use.
    pub(crate) fn embedded(&self, model: &str) -> Result<Arc<Embedded>, AnimateError> {
        let poisoned =
            |_| AnimateError::Model { model: model.to_owned(), message: "an earlier load failed".into() };
        let mut loaded = self.animators.lock().map_err(poisoned)?;
        if let Some(found) = loaded.get(model) {
            return Ok(Arc::clone(found));
        }
        let folder;
        let source: &dyn ModelSource = if model == "embedded" {
            &*KINORA_MINI
        } else {
            folder = self.folder(model)?;
            &folder
        };
        let found = Arc::new(Embedded::load(source, &self.device)?);
        loaded.insert(model.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    fn folder(&self, model: &str) -> Result<FolderModel, AnimateError> {
        let path = self.base.join(model);
        if path.join("config.json").is_file() {
            return Ok(FolderModel::new(path));
        }
        Err(AnimateError::Model {
            model: model.to_owned(),
            message: "expected \"embedded\" or a folder with a config.json of the embedded model's layout"
                .into(),
        })
    }

    /// A picture prepared for clicks, which is most of the work of the first one.
    pub(crate) fn prepare(&self, picture: &Picture) -> Result<ClickCut, RunError> {
        let input = |error: SaliencyError| RunError::input(error.to_string());
        ClickCut::new(picture).with_salient(&self.salient()?).map_err(input)
    }

    fn salient(&self) -> Result<Salient, RunError> {
        let fail = |problem: &dyn std::fmt::Display| {
            RunError::from(AnimateError::Model { model: "u2netp".into(), message: problem.to_string() })
        };
        let config: U2NetpConfig = serde_json::from_slice(&U2NETP.read("config.json").map_err(|e| fail(&e))?)
            .map_err(|e| fail(&e))?;
        let weights = U2NETP.read("u2netp.safetensors").map_err(|e| fail(&e))?;
        let vb = candle_nn::VarBuilder::from_slice_safetensors(&weights, DType::F32, &self.device)
            .map_err(|e| fail(&e))?;
        Ok(Salient { net: U2Netp::new(&config, vb).map_err(|e| fail(&e))?, device: self.device.clone() })
    }
}

/// Everything the clicks of a query may mean, the best first.
pub(crate) fn candidates(cut: &ClickCut, query: &MaskQuery<'_>) -> Result<Vec<MaskCandidate>, RunError> {
    let points: Vec<ClickPoint> =
        query.points.iter().map(|p| ClickPoint { x: p.x as f32, y: p.y as f32, keep: p.keep }).collect();
    let area = query.rectangle.map(|r| BoxPrompt {
        x0: r.x0 as f32,
        y0: r.y0 as f32,
        x1: r.x1 as f32,
        y1: r.y1 as f32,
    });
    cut.cut(&points, area).map_err(|error| RunError::input(error.to_string()))
}

/// The candidate a document asks for; the best where it has no such one.
pub(crate) fn chosen(found: &[MaskCandidate], wanted: Candidate) -> Option<&MaskCandidate> {
    let kind = match wanted {
        Candidate::Best => None,
        Candidate::Part => Some(CandidateKind::Part),
        Candidate::Object => Some(CandidateKind::Object),
        Candidate::Whole => Some(CandidateKind::Whole),
        Candidate::Salient => Some(CandidateKind::Salient),
    };
    found.iter().find(|c| kind.is_none_or(|kind| c.kind == kind)).or(found.first())
}

/// U²-Net-p as [`ClickCut`] wants it.
struct Salient {
    net: U2Netp,
    device: Device,
}

impl Salient {
    fn map(&self, picture: &Picture) -> Result<Mask, Box<dyn std::error::Error + Send + Sync>> {
        let side = u32::try_from(self.net.config().size)?;
        let small = resize(picture, side, side);
        let values: Vec<f32> = small.rgb().iter().map(|&byte| f32::from(byte) / 255.0).collect();
        let n = side as usize;
        let map = self.net.forward(&Tensor::from_vec(values, (1, n, n, 3), &self.device)?)?;
        let alpha = map.flatten_all()?.to_vec1::<f32>()?;
        Ok(resize_mask(&Mask::new(side, side, alpha)?, picture.width(), picture.height()))
    }
}

impl Saliency for Salient {
    fn saliency(&self, picture: &Picture) -> Result<Mask, SaliencyError> {
        self.map(picture).map_err(SaliencyError::Network)
    }
}

impl Engines for Machinery {
    fn animator(&self, model: &str) -> Result<Arc<dyn Animator>, AnimateError> {
        Ok(self.embedded(model)?)
    }

    fn click(&self, picture: &Picture, query: &MaskQuery<'_>) -> Result<Mask, RunError> {
        let found = candidates(&self.prepare(picture)?, query)?;
        chosen(&found, query.candidate)
            .map(|candidate| candidate.mask.clone())
            .ok_or_else(|| RunError::input("the click selects nothing; click elsewhere"))
    }

    fn click_digest(&self) -> String {
        CLICK_VERSION.to_owned()
    }

    fn refine(&self, found: Mask, dilate: f64, feather: f64) -> Result<Mask, RunError> {
        let grown = if dilate == 0.0 { found } else { mask::dilate(&found, dilate as f32) };
        Ok(if feather == 0.0 { grown } else { mask::feather(&grown, feather as f32) })
    }

    fn numeric_path(&self) -> String {
        if self.device.is_cpu() { "cpu f32".to_owned() } else { format!("{:?} f32", self.device.location()) }
    }
}
