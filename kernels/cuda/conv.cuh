// Convolution as a matrix product: what its kernels share.
//
// Rows are output pixels, columns output channels, terms (tap, channel) pairs. Pictures are
// channels-last. Within every 32 columns the weight is stored in the order in which a lane of the
// matrix units holds results (row p = 8 j + 2 t + e is channel 8 t + 2 j + e), so that a lane ends up
// with 8 neighbouring channels and reads and writes 16 bytes at a time.
#pragma once
#include "common.cuh"

// CONV_GATED: of 8 neighbouring columns the first four are values, the others their gates; the output is
// value · gelu(gate), half as many channels.
enum ConvActivation { CONV_NONE = 0, CONV_RELU = 1, CONV_SWISH = 2, CONV_GELU = 3, CONV_GATED = 4 };

// Mirrors `Params` of src/cuda/conv.rs, field by field.
struct ConvParams {
  const void *x;         // [n, height, width, channels]
  const void *weight;    // [phases, columns, taps, channels]
  const float *bias;     // [columns] or null
  const void *residual;  // like out, or null
  void *out;             // [n, out_height, out_width, out_channels], a picture twice as large with phases
  float *partial;        // [splits, all output pixels, columns] when the terms are split, else null
  long long rows;        // output pixels of one phase
  int height, width, channels;
  int out_height, out_width, out_channels;  // of one phase
  int columns;                              // out_channels rounded up to 32
  int kernel, stride, padding;
  int phases;  // 1, or 4 for a picture of doubled size: phase (y, x) fills pixels (2 i + y, 2 j + x)
  int chunks;  // channel blocks of a tap
  int row_tiles, column_tiles, splits;
  int activation;
  float slope;  // swish is x · sigmoid(slope · x)
};

// What a block works on: a tile of pixels, a tile of channels of a phase, a part of the terms.
struct ConvWork {
  int row_tile, column, phase, split, first, last;
};

template <int BN> __device__ __forceinline__ ConvWork conv_work(const ConvParams &p, int item) {
  ConvWork w;
  const int across = p.phases * p.column_tiles, rest = item / across, n = item - rest * across;
  w.phase = n / p.column_tiles;
  w.column = (n - w.phase * p.column_tiles) * BN;
  w.row_tile = rest / p.splits;
  w.split = rest - w.row_tile * p.splits;
  const int terms = p.kernel * p.kernel * p.chunks;
  w.first = static_cast<int>(static_cast<long long>(terms) * w.split / p.splits);
  w.last = static_cast<int>(static_cast<long long>(terms) * (w.split + 1) / p.splits);
  return w;
}

// The pixel of the whole output that row `row` of a phase is.
__device__ __forceinline__ long long output_pixel(const ConvParams &p, long long row, int phase) {
  if (p.phases == 1) return row;
  const unsigned r = static_cast<unsigned>(row), line = r / p.out_width, x = r - line * p.out_width;
  return (2ll * line + phase / 2) * (2 * p.out_width) + 2 * x + phase % 2;
}

// x Φ(x); the error function by formula 7.1.26 of Abramowitz and Stegun, good to 1.5e-7.
__device__ __forceinline__ float gelu(float x) {
  const float z = fabsf(x) * 0.70710678f, t = __fdividef(1.f, fmaf(0.3275911f, z, 1.f));
  const float poly =
      t * fmaf(t, fmaf(t, fmaf(t, fmaf(t, 1.061405429f, -1.453152027f), 1.421413741f), -0.284496736f), 0.254829592f);
  const float tail = 0.5f * poly * exp2_fast(-LOG2_E * z * z);  // Φ(-|x|)
  return x * (x < 0.f ? tail : 1.f - tail);
}

__device__ __forceinline__ float conv_activate(const ConvParams &p, float x) {
  if (p.activation == CONV_SWISH) return __fdividef(x, 1.f + exp2_fast(-p.slope * LOG2_E * x));
  if (p.activation == CONV_RELU) return x < 0.f ? 0.f : x;
  if (p.activation == CONV_GELU) return gelu(x);
  return x;
}

__device__ __forceinline__ void load_bias(const ConvParams &p, int column, float (&bias)[8]) {
  if (p.bias != nullptr && column < p.columns) {
    const float4 a = __ldg(reinterpret_cast<const float4 *>(p.bias + column));
    const float4 b = __ldg(reinterpret_cast<const float4 *>(p.bias + column + 4));
    bias[0] = a.x, bias[1] = a.y, bias[2] = a.z, bias[3] = a.w;
    bias[4] = b.x, bias[5] = b.y, bias[6] = b.z, bias[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) bias[i] = 0.f;
  }
}

// Whether 8 channels from `column` on can be moved at once.
__device__ __forceinline__ bool whole(const ConvParams &p, int column) {
  return p.out_channels % 8 == 0 && column < p.out_channels;
}

// Eight residual values of a pixel; zeros where there are none.
template <typename T>
__device__ __forceinline__ uint4 load_residual(const ConvParams &p, long long pixel, int column) {
  if (p.residual == nullptr || pixel < 0 || !whole(p, column)) return make_uint4(0, 0, 0, 0);
  return __ldg(reinterpret_cast<const uint4 *>(static_cast<const T *>(p.residual) + pixel * p.out_channels + column));
}

// Bias, activation, residual, store: 8 channels of a pixel.
template <typename T>
__device__ __forceinline__ void store_channels(const ConvParams &p, long long pixel, int column, float (&v)[8],
                                               const float (&bias)[8], uint4 residual) {
  if (p.activation == CONV_GATED) {
    if (column >= p.out_channels) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = (v[i] + bias[i]) * gelu(v[i + 4] + bias[i + 4]);
    T *out = static_cast<T *>(p.out) + (pixel * p.out_channels + column) / 2;
    *reinterpret_cast<uint2 *>(out) = make_uint2(pack<T>(v[0], v[1]), pack<T>(v[2], v[3]));
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = conv_activate(p, v[i] + bias[i]);
  T *out = static_cast<T *>(p.out) + pixel * p.out_channels + column;
  if (whole(p, column)) {
    if (p.residual != nullptr) {
      const uint32_t r[4] = {residual.x, residual.y, residual.z, residual.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 add = unpack<T>(r[i]);
        v[2 * i] += add.x, v[2 * i + 1] += add.y;
      }
    }
    *reinterpret_cast<uint4 *>(out) =
        make_uint4(pack<T>(v[0], v[1]), pack<T>(v[2], v[3]), pack<T>(v[4], v[5]), pack<T>(v[6], v[7]));
  } else {
    const T *add = static_cast<const T *>(p.residual) + pixel * p.out_channels + column;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i < p.out_channels) out[i] = from_float<T>(p.residual ? v[i] + to_float(add[i]) : v[i]);
    }
  }
}

// A sum over a part of the terms, kept for `conv_finish`.
__device__ __forceinline__ void store_partial(const ConvParams &p, long long pixel, int split, int column,
                                              const float (&v)[8]) {
  if (column >= p.columns) return;
  float *to = p.partial + (split * p.rows * p.phases + pixel) * p.columns + column;
  *reinterpret_cast<float4 *>(to) = make_float4(v[0], v[1], v[2], v[3]);
  *reinterpret_cast<float4 *>(to + 4) = make_float4(v[4], v[5], v[6], v[7]);
}

// Rows of the matrix units: registers to memory. `c[m][4 (4 b + j) + 2 h + e]` is row g + 8 h of strip
// m, channel 32 b + 8 t + 2 j + e of the tile; `pixel[m][h]` is negative for rows past the end.
//
// The residual is read a few steps ahead, as far as registers allow.
template <typename T, int STRIPS, int N>
__device__ __forceinline__ void store_tile(const ConvParams &p, const float (&c)[STRIPS][N],
                                           const long long (&pixel)[STRIPS][2], int split, int first, int t) {
  constexpr int BLOCKS = N / 16, STEPS = STRIPS * BLOCKS;
  constexpr int AHEAD = STRIPS * N > 128 || N == 16 ? 2 : STEPS < 4 ? STEPS : 4;
  uint4 add[AHEAD][2];
  const auto fetch = [&](int step) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      add[step % AHEAD][h] = load_residual<T>(p, pixel[step / BLOCKS][h], first + step % BLOCKS * 32 + 8 * t);
    }
  };
  const bool whole_sum = p.partial == nullptr;
#pragma unroll
  for (int step = 0; step < AHEAD; ++step) {
    if (whole_sum) fetch(step);
  }
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    const int m = step / BLOCKS, b = step % BLOCKS, column = first + 32 * b + 8 * t;
    float bias[8];
    load_bias(p, column, bias);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = c[m][16 * b + 4 * (i / 2) + 2 * h + i % 2];
      if (pixel[m][h] >= 0) {
        if (whole_sum) store_channels<T>(p, pixel[m][h], column, v, bias, add[step % AHEAD][h]);
        else store_partial(p, pixel[m][h], split, column, v);
      }
    }
    if (whole_sum && step + AHEAD < STEPS) fetch(step + AHEAD);
  }
}
