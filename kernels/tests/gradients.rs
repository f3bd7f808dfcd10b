//! Gradients on the CPU against finite differences of f64 arithmetic, for every instruction set.
// Test helpers outside #[test]
fn every_operation_follows_finite_differences() {
    on_every_isa(|isa| {
        let wrong: Vec<String> =
            small().iter().flat_map(|case| case.check(&Device::Cpu, DType::F32, 1e-4, 48)).collect();
        assert!(wrong.is_empty(), "{isa:?}: {wrong:#?}");
    });
}

#[test]
fn half_types_follow_within_their_digits() {
    let check =
        |dtype, limit| small().into_iter().flat_map(move |case| case.check(&Device::Cpu, dtype, limit, 24));
    let wrong: Vec<String> = check(DType::F16, 6e-3).chain(check(DType::BF16, 5e-2)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
