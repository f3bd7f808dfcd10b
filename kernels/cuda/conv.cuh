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
  const void *bias;      // [columns] or null; f32, or like x when narrow_bias
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
  int band;    // row tiles that are worked on together, so that weights are read once for all of them
  int narrow_bias;
  int activation;
  float slope;  // swish is x · sigmoid(slope · x)
};

// What a block works on: a tile of pixels, a tile of channels of a phase, a part of the terms.
struct ConvWork {
  int row_tile, column, phase, split, first, last;
};

template <int BN> __device__ __forceinline__ ConvWork conv_work(const ConvParams &p, int item) {
  ConvWork w;
  // Unsigned and only where needed: a division is a good part of a short tile's bookkeeping.
  const unsigned across = p.phases * p.column_tiles, banded = p.band * across * p.splits;
  const unsigned band = static_cast<unsigned>(item) / banded, within = item - band * banded;
  const unsigned high = min(p.band, p.row_tiles - static_cast<int>(band) * p.band) * p.splits;
  unsigned n = within / high, row = within - n * high;
  w.phase = 0, w.split = 0;
  if (p.phases > 1) w.phase = n / p.column_tiles, n -= w.phase * p.column_tiles;
  if (p.splits > 1) w.split = row % p.splits, row /= p.splits;
  w.column = n * BN;
  w.row_tile = band * p.band + row;
  const int terms = p.kernel * p.kernel * p.chunks;
  w.first = 0, w.last = terms;
  if (p.splits > 1) w.first = terms * w.split / p.splits, w.last = terms * (w.split + 1) / p.splits;
  return w;
}

// The pixel of the whole output that row `row` of a phase is.
__device__ __forceinline__ long long output_pixel(const ConvParams &p, long long row, int phase) {
  if (p.phases == 1) return row;
  const unsigned r = static_cast<unsigned>(row), line = r / p.out_width, x = r - line * p.out_width;
  return (2ll * line + phase / 2) * (2 * p.out_width) + 2 * x + phase % 2;
}

// x Φ(x) with Φ = 1 / (1 + 2^-l), l the binary logarithm of the odds Φ / (1 - Φ): x times a polynomial of x²
// fitted to the normal distribution, within 2.4e-4 of the value or of 2^-14, half a step of f16.
__device__ __forceinline__ float gelu(float x) {
  const float u = fminf(x * x, 30.f);
  float l = fmaf(u, -4.56660328e-8f, 3.02063105e-6f);
  l = fmaf(u, l, -5.93127292e-5f);
  l = fmaf(u, l, -6.71658035e-4f);
  l = fmaf(u, l, 0.106257828f);
  l = fmaf(u, l, 2.3012093f);
  float odds;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(odds) : "f"(1.f + exp2_fast(-x * l)));
  return x * odds;
}

__device__ __forceinline__ float conv_activate(const ConvParams &p, float x) {
  if (p.activation == CONV_SWISH) return __fdividef(x, 1.f + exp2_fast(-p.slope * LOG2_E * x));
  if (p.activation == CONV_RELU) return x < 0.f ? 0.f : x;
  if (p.activation == CONV_GELU) return gelu(x);
  return x;
}

template <typename T> __device__ __forceinline__ float bias_of(const ConvParams &p, int column) {
  if (p.bias == nullptr || column >= p.columns) return 0.f;
  if (p.narrow_bias) return to_float(static_cast<const T *>(p.bias)[column]);
  return __ldg(static_cast<const float *>(p.bias) + column);
}

// Whether 8 channels from `column` on can be moved at once.
__device__ __forceinline__ bool whole(const ConvParams &p, int column) {
  return p.out_channels % 8 == 0 && column < p.out_channels;
}

// Eight residual values of a pixel; zeros where there are none.
template <typename T>
__device__ __forceinline__ uint4 load_residual(const ConvParams &p, long long pixel, int column) {
  if (p.residual == nullptr || pixel < 0 || !whole(p, column)) return make_uint4(0, 0, 0, 0);
  const T *at = static_cast<const T *>(p.residual) + pixel * p.out_channels + column;
  uint4 r;
  // Volatile: all of them at once would not fit the registers.
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(at));
  return r;
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
