// Rows of a head in registers, in a layout where global memory, both products and the output agree.
//
// The terms of a dot product may be summed in any order. So a lane reads 16 contiguous bytes of its
// row (8 of 32 columns, four lanes a row) and hands the pieces to the matrix unit as if they were
// the columns it expects; queries and keys permute alike. Values are transposed in registers
// (movmatrix), which permutes the columns of the product the same way: a lane's results are 8
// contiguous columns again, written with one 16-byte store. No shared memory, no shuffles.
//
// A dimension is cut into blocks of 32 columns (16 bytes a lane), then 16 (8 bytes), then 8 (4 bytes).
#pragma once
#include "common.cuh"

template <int D> struct Cut {
  static_assert(D % 8 == 0, "rows come in pieces of 8 columns");
  static constexpr int WIDE = D / 32, MID = (D % 32) / 16, NARROW = (D % 16) / 8;
  static constexpr int REGS = 4 * WIDE + 2 * MID + NARROW;  // 32-bit registers of one row in a lane
};

template <int D> struct Row {
  uint32_t r[Cut<D>::REGS];
};

template <int D> __device__ __forceinline__ Row<D> zero_row() {
  Row<D> row;
#pragma unroll
  for (int i = 0; i < Cut<D>::REGS; ++i) row.r[i] = 0;
  return row;
}

// The lane's part of a row that starts at `from` (16-byte aligned); zeros when it is not `there`.
template <int D, typename T> __device__ __forceinline__ Row<D> load_row(const T *from, int t, bool there) {
  using C = Cut<D>;
  Row<D> row = zero_row<D>();
  if (there) {
    const char *at = reinterpret_cast<const char *>(from);
#pragma unroll
    for (int i = 0; i < C::WIDE; ++i) {
      const uint4 x = __ldg(reinterpret_cast<const uint4 *>(at + 64 * i + 16 * t));
      row.r[4 * i] = x.x, row.r[4 * i + 1] = x.y, row.r[4 * i + 2] = x.z, row.r[4 * i + 3] = x.w;
    }
    if constexpr (C::MID) {
      const uint2 x = __ldg(reinterpret_cast<const uint2 *>(at + 64 * C::WIDE + 8 * t));
      row.r[4 * C::WIDE] = x.x, row.r[4 * C::WIDE + 1] = x.y;
    }
    if constexpr (C::NARROW) {
      row.r[C::REGS - 1] =
          __ldg(reinterpret_cast<const uint32_t *>(at + 64 * C::WIDE + 32 * C::MID + 4 * t));
    }
  }
  return row;
}

// c += q kᵀ for 16 queries (rows g and g + 8) and 8 keys (row g).
template <int D, typename T>
__device__ __forceinline__ void dot_rows(float (&c)[4], const Row<D> &q0, const Row<D> &q8, const Row<D> &k) {
  using C = Cut<D>;
#pragma unroll
  for (int i = 0; i < 2 * C::WIDE + C::MID; ++i) {
    mma16<T>(c, q0.r[2 * i], q8.r[2 * i], q0.r[2 * i + 1], q8.r[2 * i + 1], k.r[2 * i], k.r[2 * i + 1]);
  }
  if constexpr (C::NARROW) mma8<T>(c, q0.r[C::REGS - 1], q8.r[C::REGS - 1], k.r[C::REGS - 1]);
}

// Stores N registers (2 columns each) of a row at column block `at`.
template <int N> __device__ __forceinline__ void store_piece(char *at, const uint32_t (&x)[N]) {
  static_assert(N == 4 || N == 2 || N == 1, "");
  if constexpr (N == 4) *reinterpret_cast<uint4 *>(at) = make_uint4(x[0], x[1], x[2], x[3]);
  if constexpr (N == 2) *reinterpret_cast<uint2 *>(at) = make_uint2(x[0], x[1]);
  if constexpr (N == 1) *reinterpret_cast<uint32_t *>(at) = x[0];
}

// Scores of 16 queries against 16 NK keys to weights, in one pass; keeps what the output needs.
template <int NK> struct Softmax {
  float max0, max8, sum0, sum8;

  // `s` holds raw products in and weights out.
  __device__ __forceinline__ void run(float (&s)[2 * NK][4], float scale_log2) {
    max0 = max8 = -INFINITY;
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      max0 = max_nan(max0, max_nan(s[j][0], s[j][1]));
      max8 = max_nan(max8, max_nan(s[j][2], s[j][3]));
    }
    max0 = row_max(max0) * scale_log2, max8 = row_max(max8) * scale_log2;
    const float base0 = max0 == -INFINITY ? 0.f : max0, base8 = max8 == -INFINITY ? 0.f : max8;
    sum0 = sum8 = 0.f;
#pragma unroll
    for (int j = 0; j < 2 * NK; ++j) {
      s[j][0] = exp2_fast(fmaf(s[j][0], scale_log2, -base0)), s[j][1] = exp2_fast(fmaf(s[j][1], scale_log2, -base0));
      s[j][2] = exp2_fast(fmaf(s[j][2], scale_log2, -base8)), s[j][3] = exp2_fast(fmaf(s[j][3], scale_log2, -base8));
      sum0 += s[j][0] + s[j][1], sum8 += s[j][2] + s[j][3];
    }
    sum0 = row_sum(sum0), sum8 = row_sum(sum8);
  }

  __device__ __forceinline__ float factor0() const { return sum0 == 0.f ? 0.f : 1.f / sum0; }
  __device__ __forceinline__ float factor8() const { return sum8 == 0.f ? 0.f : 1.f / sum8; }
};
