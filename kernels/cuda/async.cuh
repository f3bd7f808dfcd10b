// Asynchronous copies to shared memory and fragments from it.
#pragma once
#include "common.cuh"

__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there) {
  const int bytes = there ? 16 : 0;  // the rest is filled with zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void load4(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}
__device__ __forceinline__ void load4_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}

// ROWS rows of a head to shared memory; rows from `limit` on and columns from `dim` on become zero.
template <typename T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void fetch(uint32_t to, const T *from, long long stride, int first, int limit, int dim) {
  constexpr int CHUNKS = D / 8, ROW_BYTES = 2 * (D + 8);
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, column = i % CHUNKS * 8, token = first + row;
    const bool there = token < limit && column < dim;
    copy16(to + row * ROW_BYTES + 2 * column, from + (there ? token * stride + column : 0), there);
  }
}
