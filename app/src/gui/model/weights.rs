//! How large public models are before they are here, counted from the lists of their weights.
//!
//! The registry has no lengths: nobody here could fetch the files. What their networks hold is known to the weight.

/// Numbers in a model's own files, without those of the models it needs; none for one that was not counted.
pub(crate) fn count(id: &str) -> Option<u64> {
    match id {
        // Text encoder, UNet and autoencoder.
        "sd15" => Some(123_060_480 + 859_520_964 + 83_653_863),
        "animatediff-v1" => Some(417_560_000),
        "animatediff-v2" => Some(453_813_440),
        "animatediff-v3" => Some(417_700_800),
        "pia" => Some(417_727_040),
        _ => None,
    }
}

/// Bytes of a model's files, about: checkpoints are published in f32, and what else is in a file weighs nothing.
pub(crate) fn file_bytes(id: &str) -> Option<u64> {
    count(id).map(|count| count.saturating_mul(4))
}

/// Bytes that the weights of a model and of those it needs take in memory while they render: f32 on a processor, f16 on
/// a card. None where one was not counted.
pub(crate) fn memory_bytes(id: &str, needs: &[String], card: bool) -> Option<u64> {
    let needed = needs.iter().map(|need| count(need));
    let all = needed.chain([count(id)]).try_fold(0u64, |sum, count| Some(sum.saturating_add(count?)))?;
    Some(all.saturating_mul(if card { 2 } else { 4 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a committed list of weights: a name and its shape a line.
    fn listed(name: &str) -> u64 {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = folder.join(format!("../pipeline/tests/fixtures/layouts/{name}.txt"));
        let size = |line: &str| -> u64 {
            let shape = line.split_once(' ').unwrap().1;
            shape
                .split('x')
                .filter(|side| *side != "scalar")
                .map(|side| side.parse::<u64>().unwrap())
                .product()
        };
        std::fs::read_to_string(path).unwrap().lines().map(size).sum()
    }

    #[test]
    fn counts_are_those_of_the_lists_of_weights() {
        let base: u64 = ["sd15_text_encoder", "sd15_unet", "sd15_vae"].map(listed).iter().sum();
        assert_eq!(count("sd15"), Some(base));
        for (id, list) in [
            ("animatediff-v1", "motion_adapter_v1"),
            ("animatediff-v2", "motion_adapter_v2"),
            ("animatediff-v3", "motion_adapter_v3"),
            ("pia", "pia_adapter"),
        ] {
            assert_eq!(count(id), Some(listed(list)), "{id}");
        }
        let registry = kinora_pipeline::store::registry::Registry::shipped().unwrap();
        for model in registry.models() {
            assert!(count(&model.id).is_some(), "{} is in the registry and was not counted", model.id);
        }
    }

    #[test]
    fn memory_is_that_of_a_model_with_its_base() {
        let needs = ["sd15".to_owned()];
        assert_eq!(memory_bytes("pia", &needs, false), Some(4 * (1_066_235_307 + 417_727_040)));
        assert_eq!(memory_bytes("pia", &needs, true), Some(2 * (1_066_235_307 + 417_727_040)));
        assert_eq!(memory_bytes("pia", &["else".to_owned()], false), None);
        assert_eq!(file_bytes("hub:own/er"), None);
    }
}
