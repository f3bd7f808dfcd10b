// The last pass of Hopper's convolution: sums from registers to memory.
//
// `c[m][4 (4 b + j) + 2 h + e]` is row g + 8 h of strip m, column 32 b + 8 t + 2 j + e of the tile. The code
// runs straight through once a tile, while the other group multiplies: every instruction counts, and there is
// one kernel a kind that holds only what it needs.
#pragma once
#include "conv.cuh"

enum ConvStore {
  STORE_WHOLE,   // + bias + residual, channels in groups of 8
  STORE_SUMS,    // f32 sums for `conv_finish` or `conv_collect`
  STORE_GATED,   // four values and their four gates in every 8 columns; half as many channels come out
  STORE_ACTIVE,  // activation(… + bias) + residual, any number of channels
};

template <bool FIRST, typename A, typename B> struct Select { using Type = A; };
template <typename A, typename B> struct Select<false, A, B> { using Type = B; };

// The 8 columns of a thread from 32 b + 8 t on are stored when 32 b is below its number for the row; so that
// no store needs a branch around it.
__device__ __forceinline__ void store16(void *to, uint32_t a, uint32_t b, uint32_t c, uint32_t d, int at, int below) {
  asm volatile("{ .reg .pred p; setp.lt.s32 p, %5, %6; @p st.global.v4.b32 [%0], {%1, %2, %3, %4}; }" ::"l"(to), "r"(a),
               "r"(b), "r"(c), "r"(d), "r"(at), "r"(below)
               : "memory");
}
__device__ __forceinline__ void store8(void *to, uint32_t a, uint32_t b, int at, int below) {
  asm volatile("{ .reg .pred p; setp.lt.s32 p, %3, %4; @p st.global.v2.b32 [%0], {%1, %2}; }" ::"l"(to), "r"(a), "r"(b),
               "r"(at), "r"(below)
               : "memory");
}
__device__ __forceinline__ uint4 load16(const void *from, int at, int below) {
  uint4 r;
  asm volatile(
      "{ .reg .pred p; setp.lt.s32 p, %5, %6; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0; "
      "@p ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4]; }"
      : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
      : "l"(from), "r"(at), "r"(below));
  return r;
}
__device__ __forceinline__ void read_biases(float (&bias)[8], uint32_t at) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    // Volatile: read ahead of their block they would cost registers that the sums need.
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(bias[i]), "=f"(bias[i + 1]), "=f"(bias[i + 2]), "=f"(bias[i + 3])
                 : "r"(at + 4 * i));
  }
}

// Where the rows of a thread go.
template <int STRIPS> struct StoreRows {
  long long pixel[STRIPS][2];
  int below[STRIPS][2];  // see above; 0 or less for rows past the end
};

// Biases of the thread's columns are in shared memory at `biases`, `column` is its first one. The residual is
// read a block of 32 columns ahead.
template <typename T, ConvStore KIND, bool RESIDUAL, int STRIPS, int N>
__device__ __forceinline__ void store_blocks(const ConvParams &p, const float (&c)[STRIPS][N],
                                             const StoreRows<STRIPS> &rows, uint32_t biases, int column) {
  using Out = typename Select<KIND == STORE_SUMS, float, T>::Type;
  constexpr int BLOCKS = N / 16, STEP = KIND == STORE_GATED ? 16 : 32;
  Out *to[STRIPS][2];
#pragma unroll
  for (int i = 0; i < 2 * STRIPS; ++i) {
    Out *out = static_cast<Out *>(KIND == STORE_SUMS ? static_cast<void *>(p.partial) : p.out);
    const int width = KIND == STORE_SUMS ? p.columns : KIND == STORE_GATED ? p.out_channels / 2 : p.out_channels;
    to[i / 2][i % 2] = out + rows.pixel[i / 2][i % 2] * width + (KIND == STORE_GATED ? column / 2 : column);
  }
  // The residual lies as the output does.
  const long long apart = RESIDUAL ? static_cast<const char *>(p.residual) - static_cast<const char *>(p.out) : 0;
  uint4 add[2][STRIPS][2];
  const auto fetch = [&](int b) {
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; ++i) {
      const int m = i / 2, h = i % 2;
      add[b % 2][m][h] = load16(reinterpret_cast<const char *>(to[m][h] + STEP * b) + apart, 32 * b, rows.below[m][h]);
    }
  };
  if constexpr (RESIDUAL) fetch(0);
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
    if constexpr (RESIDUAL) {
      if (b + 1 < BLOCKS) fetch(b + 1);
    }
    float bias[8];
    if constexpr (KIND != STORE_SUMS) read_biases(bias, biases + 128 * b);
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; ++i) {
      const int m = i / 2, h = i % 2, below = rows.below[m][h];
      Out *at = to[m][h] + STEP * b;
      float v[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] = c[m][16 * b + 4 * (j / 2) + 2 * h + j % 2];
      if constexpr (KIND == STORE_SUMS) {
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
          store16(at + j, __float_as_uint(v[j]), __float_as_uint(v[j + 1]), __float_as_uint(v[j + 2]),
                  __float_as_uint(v[j + 3]), 32 * b, below);
        }
      } else if constexpr (KIND == STORE_GATED) {
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = (v[j] + bias[j]) * gelu(v[j + 4] + bias[j + 4]);
        store8(at, pack<T>(v[0], v[1]), pack<T>(v[2], v[3]), 32 * b, below);
      } else if constexpr (KIND == STORE_WHOLE) {
        uint32_t y[4], r[4] = {};
        if constexpr (RESIDUAL) {
          const uint4 a = add[b % 2][m][h];
          r[0] = a.x, r[1] = a.y, r[2] = a.z, r[3] = a.w;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float low = v[2 * j] + bias[2 * j], high = v[2 * j + 1] + bias[2 * j + 1];
          if constexpr (RESIDUAL) {
            const float2 more = unpack<T>(r[j]);
            low += more.x, high += more.y;
          }
          y[j] = pack<T>(low, high);
        }
        store16(at, y[0], y[1], y[2], y[3], 32 * b, below);
      } else if (32 * b < below) {
        const long long pixel = rows.pixel[m][h];
        store_channels<T>(p, pixel, column + 32 * b, v, bias, load_residual<T>(p, pixel, column + 32 * b));
      }
    }
  }
}

template <typename T, ConvStore KIND, int STRIPS, int N>
__device__ __forceinline__ void store_tile(const ConvParams &p, const float (&c)[STRIPS][N],
                                           const StoreRows<STRIPS> &rows, uint32_t biases, int column) {
  if (KIND == STORE_WHOLE && p.residual != nullptr) store_blocks<T, KIND, true>(p, c, rows, biases, column);
  else store_blocks<T, KIND, false>(p, c, rows, biases, column);
}
