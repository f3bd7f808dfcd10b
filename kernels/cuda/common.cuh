// What every kernel shares: parameters, conversions, fragment arithmetic.
//
// Fragment names follow the PTX manual: in a warp, lane = 4 g + t.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

enum MaskKind { MASK_NONE = 0, MASK_CAUSAL = 1, MASK_LENGTHS = 2, MASK_BIAS = 3, MASK_BLOCKS = 4 };

// Mirrors `Params` of src/cuda/attention.rs, field by field. Strides count elements.
struct AttentionParams {
  const void *q, *k, *v;
  void *out;
  float *lse;           // [batch, inner, heads, queries] or null
  const void *bias;     // element type of q, or f32 when bias_f32
  const int *lengths;   // one a sequence
  const int *block_start, *block_index;  // compressed rows of key blocks, one row a (plane, query block)
  long long q_stride[4], k_stride[4], v_stride[4], out_stride[4];  // batch, inner, head, token
  long long bias_stride[5];                                        // batch, inner, head, query, key
  int batch, inner, heads, group;  // `group` query heads share a key head
  int queries, keys, dim, mask;
  int bias_f32, block_q, block_k, block_planes;
  float scale_log2;  // scale · log2(e)
  int tiles;         // work items of one problem
};

// Where a problem (sequence and head) lies.
struct Place {
  int batch, inner, head, sequence;
};

__device__ __forceinline__ Place place_of(const AttentionParams &p, unsigned problem) {
  Place at;
  const unsigned heads = p.heads, inner = p.inner, sequence = problem / heads;
  const unsigned batch = inner == 1 ? sequence : sequence / inner;
  at.head = problem - sequence * heads;
  at.sequence = sequence;
  at.inner = sequence - batch * inner;
  at.batch = batch;
  return at;
}

__device__ __forceinline__ long long offset_of(const long long *stride, const Place &at, int head) {
  return at.batch * stride[0] + at.inner * stride[1] + head * stride[2];
}

__device__ __forceinline__ int key_limit(const AttentionParams &p, const Place &at) {
  return p.mask == MASK_LENGTHS ? min(p.lengths[at.sequence], p.keys) : p.keys;
}

constexpr float LN_2 = 0.6931471805599453f;
constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A maximum that keeps NaN: a query with a NaN score must give NaN, not the other keys' mean.
__device__ __forceinline__ float max_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a > b || a != a ? a : b;
#endif
}

template <typename T> __device__ __forceinline__ float to_float(T x);
template <> __device__ __forceinline__ float to_float<float>(float x) { return x; }
template <> __device__ __forceinline__ float to_float<__half>(__half x) { return __half2float(x); }
template <> __device__ __forceinline__ float to_float<__nv_bfloat16>(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// Two values in one register, the first in the low half.
template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  const __half2 y = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&y);
#endif
}
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <typename T> __device__ __forceinline__ float2 unpack(uint32_t x);
template <> __device__ __forceinline__ float2 unpack<__half>(uint32_t x) {
  return __half22float2(*reinterpret_cast<__half2 *>(&x));
}
template <> __device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

#define MMA_K16(TYPE)                                                                                       \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, " \
               "{%8,%9}, {%0,%1,%2,%3};"                                                                    \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                             \
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
#define MMA_K8(TYPE)                                                                                        \
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5}, "        \
               "{%6}, {%0,%1,%2,%3};"                                                                       \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                             \
               : "r"(a0), "r"(a1), "r"(b0))

// c += a b, 16x8 by 16 (or 8) terms. Turing has half the terms an instruction, and no bf16.
template <typename T>
__device__ __forceinline__ void mma16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                      uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma16<__half>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                              uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  MMA_K16("f16");
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%8}, {%0,%1,%2,%3};\n"
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%6,%7}, {%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}
template <>
__device__ __forceinline__ void mma16<__nv_bfloat16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                     uint32_t a3, uint32_t b0, uint32_t b1) {
  MMA_K16("bf16");
}
template <typename T>
__device__ __forceinline__ void mma8(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0);
template <> __device__ __forceinline__ void mma8<__half>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  MMA_K8("f16");
}
template <>
__device__ __forceinline__ void mma8<__nv_bfloat16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  MMA_K8("bf16");
}

// Transposes an 8x8 matrix of 16-bit values held one register a lane.
__device__ __forceinline__ uint32_t transpose8(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ __forceinline__ uint32_t shared_address(const void *x) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(x));
}

// The largest (or the sum) over the four lanes of a row.
__device__ __forceinline__ float row_max(float x) {
  x = max_nan(x, __shfl_xor_sync(~0u, x, 1));
  return max_nan(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Natural log-sum of a row from its maximum in log2 units; -inf where nothing was visible.
__device__ __forceinline__ float log_sum(float max_log2, float total) {
  return total == 0.f ? -INFINITY : (max_log2 + log2f(total)) * LN_2;
}
