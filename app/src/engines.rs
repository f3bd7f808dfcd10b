//! The real machinery behind a document's ops.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Tensor};
use kinora_kernels::Isa;
use kinora_pipeline::control::click::{BoxPrompt, CandidateKind, ClickCut, ClickError, ClickPoint, Prompts};
use kinora_pipeline::control::mask;
use kinora_pipeline::control::salient::{Saliency, SaliencyError};
use kinora_pipeline::media::{Mask, Picture, resize, resize_mask};
use kinora_pipeline::nets::{U2Netp, U2NetpConfig};
use kinora_pipeline::store::hub::HubOptions;
use kinora_pipeline::store::model_source::ModelSource as _;
use kinora_pipeline::store::model_store::ModelStore;
use kinora_pipeline::systems::follow_your_click::embedded::Embedded;
use kinora_pipeline::systems::follow_your_click::{AnimateError, Animator, Models};
use kinora_pipeline::workflow::ops::Candidate;
use kinora_pipeline::workflow::{Engines, MaskQuery, ModelName, RunError};

use crate::embedded::{KINORA_MINI, U2NETP};
use crate::failure::{Failure, Kind, OrFail as _};

/// Bumped when click-cut answers differently.
const CLICK_VERSION: &str = "click-cut 1";

/// Models loaded once and shared by planning and running.
pub(crate) struct Machinery {
    /// Where weights are.
    device: Device,
    /// What results are computed on, as far as their keys are concerned.
    computes_on: DeviceLocation,
    embedded: Mutex<Option<Arc<Embedded>>>,
    models: Models,
}

impl Machinery {
    /// The embedded model, and the models below `models`.
    pub(crate) fn new(device: Device, models: &Path) -> Result<Self, Failure> {
        let computes_on = device.location();
        Self::at(device, computes_on, models)
    }

    /// Machinery that plans what will be computed on `computes_on`, and keeps nothing there: it reads models on the
    /// processor, and gives results the keys they will have.
    #[cfg(feature = "gui")]
    pub(crate) fn for_plans(computes_on: DeviceLocation, models: &Path) -> Result<Self, Failure> {
        Self::at(Device::Cpu, computes_on, models)
    }

    fn at(device: Device, computes_on: DeviceLocation, models: &Path) -> Result<Self, Failure> {
        let store = ModelStore::new(models, HubOptions::from_env()).or_fail(Kind::Bug)?;
        Ok(Self { models: Models::new(store, &device), embedded: Mutex::default(), device, computes_on })
    }

    /// Where its weights are.
    #[cfg(feature = "gui")]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The model inside Kinora, loaded on first use.
    pub(crate) fn embedded(&self) -> Result<Arc<Embedded>, AnimateError> {
        let mut place = self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*place {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Embedded::load(&*KINORA_MINI, &self.device)?);
        *place = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The models other than the embedded one.
    pub(crate) fn models_mut(&mut self) -> &mut Models {
        &mut self.models
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

/// The mask a query asks for, the best where there is no such one, with everything its clicks may mean.
pub(crate) fn select(
    cut: &ClickCut,
    query: &MaskQuery<'_>,
) -> Result<(Mask, Vec<(CandidateKind, f32)>), RunError> {
    let points =
        query.points.iter().map(|p| ClickPoint { x: p.x as f32, y: p.y as f32, keep: p.keep }).collect();
    let area = query.rectangle.map(|r| BoxPrompt {
        x0: r.x0 as f32,
        y0: r.y0 as f32,
        x1: r.x1 as f32,
        y1: r.y1 as f32,
    });
    let prompts = Prompts { points, area, strokes: vec![] };
    let input = |error: ClickError| RunError::input(error.to_string());
    let found = cut.outlines(&prompts).map_err(input)?;
    let kind = match query.candidate {
        Candidate::Best => None,
        Candidate::Part => Some(CandidateKind::Part),
        Candidate::Object => Some(CandidateKind::Object),
        Candidate::Whole => Some(CandidateKind::Whole),
        Candidate::Salient => Some(CandidateKind::Salient),
    };
    let chosen = found.iter().find(|c| kind.is_none_or(|kind| c.kind() == kind)).or(found.first());
    let chosen = chosen.ok_or_else(|| RunError::input("the click selects nothing; click elsewhere"))?;
    let mask = cut.mask(chosen, &prompts).map_err(input)?;
    Ok((mask, found.iter().map(|c| (c.kind(), c.score())).collect()))
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
    fn animator(&self, model: &ModelName<'_>) -> Result<Arc<dyn Animator>, AnimateError> {
        if model.name == ModelName::EMBEDDED {
            return Ok(self.embedded()?);
        }
        self.models.open(model.name, model.folder.as_deref())
    }

    fn click(&self, picture: &Picture, query: &MaskQuery<'_>) -> Result<Mask, RunError> {
        select(&self.prepare(picture)?, query).map(|(mask, _)| mask)
    }

    fn click_digest(&self) -> String {
        CLICK_VERSION.to_owned()
    }

    fn refine(&self, found: Mask, dilate: f64, feather: f64) -> Result<Mask, RunError> {
        let grown = if dilate == 0.0 { found } else { mask::dilate(&found, dilate as f32) };
        Ok(if feather == 0.0 { grown } else { mask::feather(&grown, feather as f32) })
    }

    fn numeric_path(&self) -> String {
        // Instruction sets round differently, threads do not.
        match self.computes_on {
            DeviceLocation::Cpu => format!("cpu f32 {}", Isa::current().name()),
            card => format!("{card:?} f32, checkpoints f16"),
        }
    }
}
