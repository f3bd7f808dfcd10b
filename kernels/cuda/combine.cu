// Weighted sums of tensors of any float types, in f32, in one pass.
#include "common.cuh"

constexpr int TERMS = 6;
enum Kind { KIND_F32 = 0, KIND_F16 = 1, KIND_BF16 = 2 };

// Mirrors `Params` of src/cuda/combine.rs.
struct Params {
  const void *term[TERMS];
  float *out;
  long long count;  // vectors
  float weight[TERMS];
  int kind[TERMS];
  int terms;
};

// N is 4 where every term starts at a whole vector, else 1.
template <int N> __device__ __forceinline__ void load_term(float (&x)[N], const void *from, int kind, long long i) {
  if (kind == KIND_F32) {
    if constexpr (N == 4) {
      const float4 v = static_cast<const float4 *>(from)[i];
      x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
      x[0] = static_cast<const float *>(from)[i];
    }
  } else if constexpr (N == 4) {
    const uint2 v = static_cast<const uint2 *>(from)[i];
    const float2 a = kind == KIND_F16 ? unpack<__half>(v.x) : unpack<__nv_bfloat16>(v.x);
    const float2 b = kind == KIND_F16 ? unpack<__half>(v.y) : unpack<__nv_bfloat16>(v.y);
    x[0] = a.x, x[1] = a.y, x[2] = b.x, x[3] = b.y;
  } else {
    x[0] = kind == KIND_F16 ? to_float(static_cast<const __half *>(from)[i])
                            : to_float(static_cast<const __nv_bfloat16 *>(from)[i]);
  }
}

template <int N> __device__ __forceinline__ void combine(const Params &p) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count; i += step) {
    float sum[N] = {};
    for (int k = 0; k < p.terms; ++k) {
      float x[N];
      load_term(x, p.term[k], p.kind[k], i);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] = fmaf(x[j], p.weight[k], sum[j]);
    }
    if constexpr (N == 4) {
      reinterpret_cast<float4 *>(p.out)[i] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    } else {
      p.out[i] = sum[0];
    }
  }
}

extern "C" __global__ void __launch_bounds__(256) combine_wide(const __grid_constant__ Params p) { combine<4>(p); }
extern "C" __global__ void __launch_bounds__(256) combine_one(const __grid_constant__ Params p) { combine<1>(p); }
