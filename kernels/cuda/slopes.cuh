// Derivatives of the activations of vectors.cuh.
#pragma once
#include "vectors.cuh"

// Within -bound..bound; NaN stays.
__device__ __forceinline__ float bounded(float x, float bound) { return x < -bound ? -bound : x > bound ? bound : x; }

// d/dx x s(kx) for the sigmoid s. Past 60 it is 0 or 1 in f32; the bound keeps infinity times zero out.
__device__ __forceinline__ float sigmoid_slope(float x, float k) {
  x = bounded(k * x, 60.f);
  const float s = logistic_exp2(-LOG2_E * x);
  return s * fmaf(x, 1.f - s, 1.f);
}

__device__ __forceinline__ float gelu_slope(float x) {
  const float below = 0.5f * erfcf(-0.7071067811865476f * x);
  x = bounded(x, 20.f);
  return fmaf(x, 0.3989422804f * exp2_fast(-0.5f * LOG2_E * x * x), below);
}

// g[i] *= activation'(x[i]).
template <int N> __device__ __forceinline__ void times_slope(float (&g)[N], const float (&x)[N], int kind) {
  switch (kind) {
    case ACT_SILU:
#pragma unroll
      for (int i = 0; i < N; ++i) g[i] *= sigmoid_slope(x[i], 1.f);
      break;
    case ACT_RELU:
#pragma unroll
      for (int i = 0; i < N; ++i) g[i] = x[i] <= 0.f ? 0.f : g[i];
      break;
    case ACT_GELU_ERF:
#pragma unroll
      for (int i = 0; i < N; ++i) g[i] *= gelu_slope(x[i]);
      break;
    case ACT_QUICK_GELU:
#pragma unroll
      for (int i = 0; i < N; ++i) g[i] *= sigmoid_slope(x[i], 1.702f);
      break;
    default: break;
  }
}
