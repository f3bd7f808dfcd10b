//! `kinora bench attention`: time, rates, floors and predicted traffic of attention calls, beside peers.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kinora_kernels::{AttentionSpec, Explained, Linear, Mask, Regime, attention, explain_attention};
use kinora_pipeline::store::atomic::AtomicFile;
use serde_json::{Value, json};

use crate::cli::BenchAttentionArgs;
use crate::failure::{Failure, Kind, OrFail as _, Outcome};
use crate::output::{say, table};

/// One shape; `frames` lays it out as a network stores its frames, `[tokens, batch, heads, dim]`.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    causal: bool,
    frames: bool,
}

/// The rows of `kernels/benches/peers/cuda_peers.py`, by its names: batch, heads, queries, keys, dim, causal.
const CARD_ROWS: [(&str, [usize; 5], bool); 16] = [
    ("sd15 spatial64", [32, 8, 4096, 4096, 40], false),
    ("sd15 spatial32", [32, 8, 1024, 1024, 80], false),
    ("sd15 spatial16", [32, 8, 256, 256, 160], false),
    ("sd15 cross64", [32, 8, 4096, 77, 40], false),
    ("sd15 temporal64", [8192, 8, 16, 16, 40], false),
    ("sd15 temporal32", [2048, 8, 16, 16, 80], false),
    ("sd15 temporal16", [512, 8, 16, 16, 160], false),
    ("temporal64 f32", [8192, 8, 32, 32, 40], false),
    ("temporal64 f64", [4096, 8, 64, 64, 40], false),
    ("dynami spatial", [32, 5, 2560, 2560, 64], false),
    ("vision tower 16k", [1, 16, 16384, 16384, 72], false),
    ("4k d64", [4, 32, 4096, 4096, 64], false),
    ("16k d64", [1, 32, 16384, 16384, 64], false),
    ("4k d128", [4, 16, 4096, 4096, 128], false),
    ("16k d128", [1, 16, 16384, 16384, 128], false),
    ("16k d128 causal", [1, 16, 16384, 16384, 128], true),
];
/// The attention rows of `kernels/benches/peers/cpu_peers.py`: batch, heads, queries, keys, dim.
const CPU_ROWS: [[usize; 5]; 7] = [
    [16, 6, 256, 512, 32],
    [16, 8, 64, 128, 32],
    [16, 6, 256, 20, 32],
    [2, 8, 4096, 4096, 40],
    [2, 8, 4096, 77, 40],
    [2, 8, 1024, 1024, 80],
    [1, 8, 4096, 4096, 64],
];
/// Its time axes: places, heads, dim; 16 frames.
const CPU_TIME_ROWS: [[usize; 3]; 3] = [[1024, 3, 32], [256, 6, 32], [1024, 8, 40]];

fn rows(on_card: bool) -> Vec<Row> {
    if on_card {
        let row = |(name, [batch, heads, queries, keys, dim], causal): (&str, [usize; 5], bool)| Row {
            name: name.to_owned(),
            batch,
            heads,
            queries,
            keys,
            dim,
            causal,
            frames: false,
        };
        return CARD_ROWS.into_iter().map(row).collect();
    }
    let mut rows: Vec<Row> = CPU_ROWS
        .into_iter()
        .map(|[batch, heads, queries, keys, dim]| Row {
            name: format!("attention {batch}x{heads} {queries}x{keys} d{dim}"),
            batch,
            heads,
            queries,
            keys,
            dim,
            causal: false,
            frames: false,
        })
        .collect();
    rows.extend(CPU_TIME_ROWS.map(|[batch, heads, dim]| Row {
        name: format!("temporal {batch} places 16 frames {heads}x{dim}"),
        batch,
        heads,
        queries: 16,
        keys: 16,
        dim,
        causal: false,
        frames: true,
    }));
    rows
}

/// What the machine does without attention: the measure of the floors.
#[derive(Debug, Clone, Copy)]
struct Peaks {
    bytes_per_second: f64,
    flops_per_second: f64,
}

/// A row's figures.
#[derive(Debug, Clone)]
struct Figures {
    row: Row,
    explained: Explained,
    ms: f64,
    /// Name and milliseconds of each peer that has this row.
    peers: Vec<(String, f64)>,
}

impl Figures {
    fn tflops(&self) -> f64 {
        self.explained.io.flops / self.ms / 1e9
    }

    fn gbytes(&self) -> f64 {
        self.explained.io.floor_bytes as f64 / self.ms / 1e6
    }

    fn floors_ms(&self, peaks: Peaks) -> [f64; 2] {
        let io = &self.explained.io;
        [io.floor_bytes as f64 / peaks.bytes_per_second * 1e3, io.flops / peaks.flops_per_second * 1e3]
    }

    fn json(&self, peaks: Peaks) -> Value {
        let (io, [bytes_ms, flops_ms]) = (&self.explained.io, self.floors_ms(peaks));
        let ratios: serde_json::Map<String, Value> =
            self.peers.iter().map(|(peer, ms)| (peer.clone(), json!(ms / self.ms))).collect();
        json!({
            "shape": self.row.name, "ms": self.ms, "tflops": self.tflops(), "gbytes_per_second": self.gbytes(),
            "kernel": self.explained.kernel.name(), "code": self.explained.code, "query_tile": self.explained.query_tile,
            "floor_bytes_ms": bytes_ms, "floor_flops_ms": flops_ms,
            "predicted_bytes": io.predicted_bytes as u64, "bound_bytes": io.bound_bytes as u64,
            "fast_bytes": self.explained.fast_bytes, "regime": regime(io.regime), "peer_over_ours": ratios,
        })
    }
}

fn regime(regime: Regime) -> &'static str {
    match regime {
        Regime::LargeCache => "M>=d2",
        Regime::SmallCache => "M<d2",
    }
}

pub(crate) fn run(args: &BenchAttentionArgs) -> Outcome {
    let json_file = args.json.as_deref().map(AtomicFile::create).transpose().or_fail(Kind::Io)?;
    let peers = args.peers.as_deref().map(read_peers).transpose()?;
    let device = crate::session::device(args.device)?;
    let rows: Vec<Row> =
        rows(device.is_cuda()).into_iter().filter(|row| row.name.contains(&args.filter)).collect();
    if rows.is_empty() {
        return Err(Failure::message(Kind::Usage, format!("no row's name contains '{}'", args.filter)));
    }
    let peaks = peaks(&device).or_fail(Kind::Bug)?;
    let mut figures = Vec::with_capacity(rows.len());
    for row in rows {
        let (explained, ms) = measure(&row, &device, args.runs).or_fail(Kind::Bug)?;
        let peers = peers.as_ref().map_or_else(Vec::new, |peers| peers_of(peers, &row.name));
        figures.push(Figures { row, explained, ms, peers });
    }
    print(&figures, peaks);
    if let Some(mut file) = json_file {
        let rows: Vec<Value> = figures.iter().map(|f| f.json(peaks)).collect();
        let whole = json!({
            "threads": kinora_kernels::threads(), "peak_gbytes_per_second": peaks.bytes_per_second / 1e9,
            "peak_tflops": peaks.flops_per_second / 1e12, "rows": rows,
        });
        std::io::Write::write_all(file.file_mut(), format!("{whole:#}\n").as_bytes()).or_fail(Kind::Io)?;
        say(file.dest().display());
        file.commit(true).or_fail(Kind::Io)?;
    }
    Ok(())
}

fn print(figures: &[Figures], peaks: Peaks) {
    say(format!(
        "floors from rates measured now: {:.0} GB/s copied, {:.2} TFLOP/s of matrix product",
        peaks.bytes_per_second / 1e9,
        peaks.flops_per_second / 1e12
    ));
    let heading = [
        "shape", "kernel", "ms", "TFLOP/s", "GB/s", "bytes ms", "flops ms", "moves MB", "bound MB", "regime",
        "peers",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for f in figures {
        let ([bytes_ms, flops_ms], io) = (f.floors_ms(peaks), &f.explained.io);
        let peers: Vec<String> =
            f.peers.iter().map(|(peer, ms)| format!("{peer} {:.2}x", ms / f.ms)).collect();
        rows.push(vec![
            f.row.name.clone(),
            f.explained.kernel.name().to_owned(),
            format!("{:.3}", f.ms),
            format!("{:.3}", f.tflops()),
            format!("{:.1}", f.gbytes()),
            format!("{bytes_ms:.3}"),
            format!("{flops_ms:.3}"),
            format!("{:.1}", io.predicted_bytes as f64 / 1e6),
            format!("{:.1}", io.bound_bytes as f64 / 1e6),
            regime(io.regime).to_owned(),
            peers.join(", "),
        ]);
    }
    table(&rows);
}

/// The plan of a row and the median milliseconds of a call, over batches long enough that launching is hidden.
fn measure(row: &Row, device: &Device, runs: usize) -> kinora_kernels::Result<(Explained, f64)> {
    let dtype = if device.is_cuda() { DType::F16 } else { DType::F32 };
    let part = |tokens: usize| -> kinora_kernels::Result<Tensor> {
        let shape = if row.frames {
            (tokens, row.batch, row.heads, row.dim)
        } else {
            (row.batch, row.heads, tokens, row.dim)
        };
        let x = Tensor::randn(0f32, 1.0, shape, device)?.to_dtype(dtype)?;
        Ok(if row.frames { x.permute((1, 2, 0, 3))? } else { x })
    };
    let (q, k, v) = (part(row.queries)?, part(row.keys)?, part(row.keys)?);
    let spec = AttentionSpec::new(row.dim).with_mask(if row.causal { Mask::Causal } else { Mask::None });
    let explained = explain_attention(&q, &k, &v, &spec)?;
    let ms = median_ms(device, runs, || attention(&q, &k, &v, &spec).map(drop))?;
    Ok((explained, ms))
}

fn median_ms(
    device: &Device,
    runs: usize,
    work: impl Fn() -> kinora_kernels::Result<()>,
) -> kinora_kernels::Result<f64> {
    let batch = |count: usize| -> kinora_kernels::Result<f64> {
        device.synchronize()?;
        let began = Instant::now();
        for _ in 0..count {
            work()?;
        }
        device.synchronize()?;
        Ok(began.elapsed().as_secs_f64() * 1e3 / count as f64)
    };
    batch(1)?;
    let once = batch(1)?;
    let count = ((20.0 / once.max(1e-6)) as usize).clamp(1, 200);
    let mut times = (0..runs.max(1)).map(|_| batch(count)).collect::<kinora_kernels::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(once))
}

/// Copies a block larger than any cache and multiplies two large matrices.
fn peaks(device: &Device) -> kinora_kernels::Result<Peaks> {
    let (dtype, elements, side) =
        if device.is_cuda() { (DType::F16, 256 << 20, 8192) } else { (DType::F32, 32 << 20, 1024) };
    let bytes = 2.0 * elements as f64 * dtype.size_in_bytes() as f64;
    let copy_ms = if device.is_cuda() {
        let block = Tensor::zeros(elements, dtype, device)?;
        median_ms(device, 5, || Ok(block.copy().map(drop)?))?
    } else {
        // Warm pages on both sides: the rate of memory, not of the system's pages.
        let (from, mut to) = (vec![1f32; elements], vec![0f32; elements]);
        let each = elements.div_ceil(kinora_kernels::threads());
        let mut copy = || {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for (to, from) in to.chunks_mut(each).zip(from.chunks(each)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
            began.elapsed().as_secs_f64() * 1e3
        };
        copy();
        (0..5).map(|_| copy()).fold(f64::INFINITY, f64::min)
    };
    let square =
        |scale: f64| Tensor::randn(0f32, 1.0, (side, side), device)?.to_dtype(dtype)?.affine(scale, 0.0);
    let (x, linear) = (square(1.0)?, Linear::new(square(0.01)?, None)?);
    let product_ms = median_ms(device, 5, || linear.forward(&x).map(drop))?;
    Ok(Peaks {
        bytes_per_second: bytes / copy_ms * 1e3,
        flops_per_second: 2.0 * (side as f64).powi(3) / product_ms * 1e3,
    })
}

/// `{"rows": [{"shape": NAME, PEER: MILLISECONDS or null, ...}]}`, as the scripts in
/// `kernels/benches/peers` write it.
fn read_peers(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).or_fail(Kind::Io)?;
    let value: Value = serde_json::from_str(&text).or_fail(Kind::BadInput)?;
    if value.get("rows").is_some_and(Value::is_array) {
        return Ok(value);
    }
    let message = format!(
        "{}: expected an object with \"rows\", as kernels/benches/peers/cuda_peers.py --json writes",
        path.display()
    );
    Err(Failure::message(Kind::BadInput, message))
}

fn peers_of(peers: &Value, name: &str) -> Vec<(String, f64)> {
    let rows = peers.get("rows").and_then(Value::as_array);
    let row =
        rows.and_then(|rows| rows.iter().find(|row| row.get("shape").and_then(Value::as_str) == Some(name)));
    let Some(row) = row.and_then(Value::as_object) else { return Vec::new() };
    let timed = |(key, value): (&String, &Value)| Some((key.clone(), value.as_f64()?));
    row.iter().filter(|(key, _)| !key.starts_with("floor_")).filter_map(timed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name() {
        let peers = json!({ "rows": [
            { "shape": "a", "floor_bytes_ms": 1.0, "fa2": 2.5, "math": null },
            { "shape": "b", "torch": 7 },
        ]});
        assert_eq!(peers_of(&peers, "a"), [("fa2".to_owned(), 2.5)]);
        assert_eq!(peers_of(&peers, "b"), [("torch".to_owned(), 7.0)]);
        assert!(peers_of(&peers, "c").is_empty());
    }

    #[test]
    fn a_small_row_is_measured_and_said_as_json() {
        let row = Row {
            name: "small".into(),
            batch: 2,
            heads: 2,
            queries: 16,
            keys: 16,
            dim: 8,
            causal: false,
            frames: true,
        };
        let (explained, ms) = measure(&row, &Device::Cpu, 1).unwrap();
        let peaks = Peaks { bytes_per_second: 1e9, flops_per_second: 1e12 };
        let json = Figures { row, explained, ms, peers: vec![("torch".into(), 2.0 * ms)] }.json(peaks);
        assert_eq!(json["kernel"], "short");
        assert_eq!(json["predicted_bytes"], 4 * 2 * 2 * 16 * 8 * 4);
        assert!((json["peer_over_ours"]["torch"].as_f64().unwrap() - 2.0).abs() < 1e-9);
        let floor = json["floor_flops_ms"].as_f64().unwrap();
        assert!((floor - 4.0 * 4.0 * 256.0 * 8.0 / 1e9).abs() < 1e-12);
    }
}
