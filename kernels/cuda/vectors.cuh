// Rows of channels in vectors of 16 bytes, and functions applied value by value.
#pragma once
#include "common.cuh"

// Values of one full vector.
template <typename T> constexpr int WIDE = 16 / static_cast<int>(sizeof(T));

// N values as they lie in memory: one 16-byte load when they fill a vector.
template <typename T, int N> struct Raw {
  static constexpr bool FULL = N == WIDE<T>;
  uint4 vector;
  T value[FULL ? 1 : N];

  __device__ __forceinline__ void load(const T *from) {
    if constexpr (FULL) {
      vector = __ldg(reinterpret_cast<const uint4 *>(from));
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) value[i] = from[i];
    }
  }

  __device__ __forceinline__ void values(float (&x)[N]) const {
    if constexpr (FULL) {
      const uint32_t part[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 4) {
          x[i] = __uint_as_float(part[i]);
        } else {
          const float2 pair = unpack<T>(part[i]);
          x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = to_float(value[i]);
    }
  }
};

template <int N, typename T> __device__ __forceinline__ void load_values(float (&x)[N], const T *from) {
  Raw<T, N> raw;
  raw.load(from);
  raw.values(x);
}

template <int N, typename T> __device__ __forceinline__ void store_values(T *to, const float (&x)[N]) {
  if constexpr (N == WIDE<T>) {
    uint32_t part[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 4) {
        part[i] = __float_as_uint(x[i]);
      } else {
        part[i] = pack<T>(x[2 * i], x[2 * i + 1]);
      }
    }
    *reinterpret_cast<uint4 *>(to) = make_uint4(part[0], part[1], part[2], part[3]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = from_float<T>(x[i]);
  }
}

// `Activation` of src/pointwise.rs, in its order.
enum ActivationKind { ACT_NONE = 0, ACT_SILU = 1, ACT_RELU = 2, ACT_GELU_ERF = 3, ACT_QUICK_GELU = 4 };

// 1 / (1 + 2^x), within two units of the last place of f32.
__device__ __forceinline__ float logistic_exp2(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.f + exp2_fast(x)));
  return y;
}

__device__ __forceinline__ float gelu_erf(float x) { return 0.5f * x * erfcf(-0.7071067811865476f * x); }

template <int N> __device__ __forceinline__ void activate(float (&x)[N], int kind) {
  switch (kind) {
    case ACT_SILU:
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] *= logistic_exp2(-LOG2_E * x[i]);
      break;
    case ACT_RELU:
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = x[i] < 0.f ? 0.f : x[i];  // keeps NaN
      break;
    case ACT_GELU_ERF:
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = gelu_erf(x[i]);
      break;
    case ACT_QUICK_GELU:
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] *= logistic_exp2(-1.702f * LOG2_E * x[i]);
      break;
    default: break;
  }
}
