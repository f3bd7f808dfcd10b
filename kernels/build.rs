//! Compiles the kernels of `cuda/` with nvcc when the `cuda` feature is on; does nothing otherwise.
//!
//! Every source is compiled per element type and architecture and embedded: machine code for
//! Ampere/Ada (`80`) and Hopper (`90a`), and PTX (`ptx80`) that the driver compiles for newer cards;
//! attention also for Turing (`ptx75`) and, with nvcc 12, Volta (`ptx70`). `KINORA_CUDA_ARCHS=90a` builds a
//! subset, `80,90a,ptx80,ptx75,ptx70` all. Images in the folder `KINORA_CUDA_IMAGES`, such as
//! `scripts/old-cards.py` makes for Volta, are taken as they are. nvcc is `$NVCC`, or `bin/nvcc` under `$CUDA_HOME` or
//! `$CUDA_PATH`, or on PATH; `scripts/cuda-toolchain.sh` installs one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Sources, their element types, and whether only Hopper can run them.
const SOURCES: &[(&str, &[&str], bool)] = &[
    ("short", &["f16", "bf16"], false),
    ("cross", &["f16", "bf16"], false),
    ("flash", &["f16", "bf16"], false),
    ("exact", &["f32", "f16", "bf16"], false),
    ("backward_short", &["f16", "bf16"], false),
    ("backward_flash", &["f16", "bf16"], false),
    ("backward_exact", &["f32", "f16", "bf16"], false),
    ("hopper", &["f16", "bf16"], true),
    ("merge", &["f32", "f16", "bf16"], false),
    ("conv", &["f32", "f16", "bf16"], false),
    ("conv_hopper", &["f16", "bf16"], true),
    ("norm", &["f32", "f16", "bf16"], false),
    ("group_once", &["f16", "bf16"], true),
    ("pointwise", &["f32", "f16", "bf16"], false),
    ("norm_backward", &["f32", "f16", "bf16"], false),
    ("pointwise_backward", &["f32", "f16", "bf16"], false),
    ("rope", &["f32", "f16", "bf16"], false),
    ("combine", &["f32"], false),
];

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "KINORA_CUDA_ARCHS", "KINORA_CUDA_IMAGES"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=cuda");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let nvcc = nvcc()?;
    let archs = std::env::var("KINORA_CUDA_ARCHS").unwrap_or_else(|_| "80,90a,ptx80,ptx75".into());
    let mut jobs = Vec::new();
    for (source, elements, hopper) in SOURCES {
        for element in *elements {
            for arch in archs.split(',').filter(|arch| exists(source, element, *hopper, arch)) {
                jobs.push((*source, *element, arch.to_owned()));
            }
        }
    }
    let queue = Mutex::new(jobs.clone());
    let errors = Mutex::new(Vec::new());
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2usize);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = queue.lock().ok().and_then(|mut q| q.pop()) {
                    if let Err(error) = compile(&nvcc, &job, &out)
                        && let Ok(mut errors) = errors.lock()
                    {
                        errors.push(error);
                    }
                }
            });
        }
    });
    if let Some(error) = errors.into_inner().ok().and_then(|list| list.into_iter().next()) {
        return Err(error);
    }
    let mut table = String::from("static IMAGES: &[Image] = &[\n");
    for job @ (source, element, arch) in &jobs {
        let path = image(job, &out);
        let _ = writeln!(
            table,
            "Image {{ source: {source:?}, element: {element:?}, arch: {arch:?}, bytes: include_bytes!({path:?}) }},"
        );
    }
    table.push_str("];\n");
    std::fs::write(out.join("images.rs"), table).map_err(|error| error.to_string())
}

/// Whether a source can be compiled for an architecture: old cards have attention only, Turing's matrix
/// instructions take f16, Volta runs plain arithmetic.
fn exists(source: &str, element: &str, hopper: bool, arch: &str) -> bool {
    let plain = matches!(source, "exact" | "merge");
    match arch {
        "90a" => true,
        _ if hopper => false,
        "ptx70" => plain,
        "ptx75" => plain || matches!(source, "short" | "cross" | "flash") && element == "f16",
        _ => true,
    }
}

fn nvcc() -> Result<PathBuf, String> {
    let under = |name: &str| std::env::var_os(name).map(|home| Path::new(&home).join("bin/nvcc"));
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let candidates = [named, under("CUDA_HOME"), under("CUDA_PATH"), Some("nvcc".into())];
    let works =
        |path: &PathBuf| Command::new(path).arg("--version").output().is_ok_and(|o| o.status.success());
    candidates.into_iter().flatten().find(works).ok_or_else(|| {
        "the `cuda` feature needs nvcc, which was not found by $NVCC, $CUDA_HOME, $CUDA_PATH or PATH: install a CUDA \
         toolkit, run scripts/cuda-toolchain.sh, or build without the feature"
            .into()
    })
}

fn image((source, element, arch): &(&str, &str, String), out: &Path) -> PathBuf {
    out.join(format!("{source}_{element}_{arch}.image"))
}

fn compile(nvcc: &Path, job: &(&str, &str, String), out: &Path) -> Result<(), String> {
    let (source, element, arch) = job;
    let to = image(job, out);
    if let Some(folder) = std::env::var_os("KINORA_CUDA_IMAGES")
        && let Some(made) = to.file_name().map(|name| Path::new(&folder).join(name))
        && made.exists()
    {
        return std::fs::copy(&made, &to).map(drop).map_err(|error| format!("{}: {error}", made.display()));
    }
    let element = match *element {
        "f16" => "__half",
        "bf16" => "__nv_bfloat16",
        _ => "float",
    };
    let target = match arch.strip_prefix("ptx") {
        Some(virtual_arch) => vec!["-ptx".into(), format!("-arch=compute_{virtual_arch}")],
        None => vec!["-cubin".into(), format!("-gencode=arch=compute_{arch},code=sm_{arch}")],
    };
    let output = Command::new(nvcc)
        .args(target)
        .args(["-std=c++17", "-O3", "--expt-relaxed-constexpr"])
        .arg(format!("-DELEMENT={element}"))
        .arg(format!("cuda/{source}.cu"))
        .arg("-o")
        .arg(to)
        .output()
        .map_err(|error| format!("nvcc did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nvcc refused cuda/{source}.cu for {arch}:\n{}", String::from_utf8_lossy(&output.stderr)))
}
