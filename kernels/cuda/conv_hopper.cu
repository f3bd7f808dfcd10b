// Convolution on Hopper: the copy engine gathers pixels (its im2col mode) and weights, warp-group
// products multiply them.
//
// A persistent block has one producer warp and two consumer warp groups. The groups take tiles in turn, so that
// one stores while the other multiplies; or, for split sums and rare last passes, share a tile. Terms go channel
// block by channel block with the taps inside, so that the pixels of a block come from device memory once and
// from the second-level cache for the other taps. A linear layer is a 1×1 convolution of one long line of pixels.
// Compile for sm_90a with -DELEMENT=__half or __nv_bfloat16.
#include <cuda.h>

#include "conv_store.cuh"
#include "conv_wgmma.cuh"
#include "mbarrier.cuh"

struct HopperConvParams {
  CUtensorMap pixels;   // [n, height, width, channels] by columns of pixels, 64 channels wide
  CUtensorMap weights;  // [phases · columns, taps, channels], boxes of rows by 64 channels; or see `copy_rows`
  CUtensorMap rest;     // channels of the pixels from 64 · first_chunks on, where they lie in a second tensor
  ConvParams p;
  int first_chunks;
  int plain_rows;  // the weight's rows are in plain order
};

// All threads of a consumer group. The barrier's number is a constant: ptxas must know it, or it gives
// the moved registers back.
__device__ __forceinline__ void group_sync(int group) {
  if (group == 0) asm volatile("bar.sync 1, 128;" ::: "memory");
  else asm volatile("bar.sync 2, 128;" ::: "memory");
}

// 64 channels of the pixels from (image, y, x) on, in reading order, each moved by the tap (dy, dx).
__device__ __forceinline__ void copy_pixels(uint32_t to, const CUtensorMap *map, uint32_t barrier, int channel, int x,
                                            int y, int image, int dx, int dy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2], {%7, %8};" ::"r"(to),
      "l"(map), "r"(barrier), "r"(channel), "r"(x), "r"(y), "r"(image), "h"(static_cast<uint16_t>(dx)),
      "h"(static_cast<uint16_t>(dy))
      : "memory");
}
// 64 channels of one tap of neighbouring output channels.
__device__ __forceinline__ void copy_weights(uint32_t to, const CUtensorMap *map, uint32_t barrier, int channel,
                                             int tap, int row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(channel), "r"(tap), "r"(row)
      : "memory");
}

// 64 channels of neighbouring output channels of a weight [columns, channels] in plain order: the map's axes
// are channels and the parts (e, t, j, block) of a column, so that rows arrive in the order of the matrix units.
__device__ __forceinline__ void copy_rows(uint32_t to, const CUtensorMap *map, uint32_t barrier, int channel,
                                          int block) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %4, %4, "
      "%5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(channel), "r"(0), "r"(block)
      : "memory");
}

// Asks the second-level cache for the residual of a tile, whose loads would otherwise wait for memory.
template <typename T, int BM, int BN>
__device__ __forceinline__ void prefetch_residual(const ConvParams &p, const ConvWork &w, int lane) {
  constexpr int LINES = BN * static_cast<int>(sizeof(T)) / 128 + 1;
  for (int i = lane; i < BM * LINES; i += 32) {
    const long long row = static_cast<long long>(w.row_tile) * BM + i / LINES;
    const int column = min(w.column + i % LINES * 64, p.out_channels - 1);
    if (row < p.rows) {
      const T *at = static_cast<const T *>(p.residual) + output_pixel(p, row, w.phase) * p.out_channels + column;
      asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
    }
  }
}

// TURNS: the groups take tiles in turn. REGS: registers of a consumer, 0 where they are not moved.
template <typename T, int BN, int STAGES, bool TURNS, ConvStore KIND, int REGS>
__device__ __forceinline__ void conv_hopper(const HopperConvParams &args) {
  constexpr int BM = 128, STRIPS = BM / (TURNS ? 64 : 128), A_BYTES = BM * 128, STAGE = A_BYTES + BN * 128;
  const ConvParams &p = args.p;
  extern __shared__ char memory[];
  const uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t full = base + STAGES * STAGE, empty = full + 8 * STAGES, turn = empty + 8 * STAGES;
  float *biases = reinterpret_cast<float *>(memory + (base - shared_address(memory)) + STAGES * (STAGE + 16) + 16);
  // Through a lane of its own, so that the compiler knows it is one number for the whole warp: what follows from
  // it (stages, matrix addresses) then takes none of the ordinary instructions.
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0), lane = threadIdx.x % 32;
  const int items = p.row_tiles * p.splits * p.phases * p.column_tiles, step = gridDim.x;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, TURNS ? 4 : 8);
    if (TURNS) barrier_init(turn, 4), barrier_init(turn + 8, 4);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();

  if (group == 2) {
    if constexpr (REGS != 0) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x >= 288) return;
    const int taps = p.kernel * p.kernel, area = p.out_height * p.out_width;
    int s = 0;
    uint32_t parity = 1;
    for (int item = blockIdx.x; item < items; item += step) {
      const ConvWork w = conv_work<BN>(p, item);
      if (KIND == STORE_WHOLE && p.residual != nullptr) prefetch_residual<T, BM, BN>(p, w, lane);
      if (lane == 0) {
        const int row = w.row_tile * BM, image = row / area, place = row - image * area;
        const int line = place / p.out_width;
        const int y = line * p.stride - p.padding, x = (place - line * p.out_width) * p.stride - p.padding;
        const int dy = w.phase / 2, dx = w.phase % 2, weight_row = w.phase * p.columns + w.column;
        int chunk = w.first / taps, tap = w.first - chunk * taps;
        int ky = tap / p.kernel, kx = tap - ky * p.kernel;
        for (int k = w.first; k < w.last; ++k) {
          const uint32_t at = base + s * STAGE;
          barrier_wait(empty + 8 * s, parity);
          barrier_expect(full + 8 * s, STAGE);
          const bool here = chunk < args.first_chunks;
          copy_pixels(at, here ? &args.pixels : &args.rest, full + 8 * s, 64 * (here ? chunk : chunk - args.first_chunks), x,
                      y, image, dx + kx, dy + ky);
          if (args.plain_rows) copy_rows(at + A_BYTES, &args.weights, full + 8 * s, 64 * chunk, w.column / 32);
          else copy_weights(at + A_BYTES, &args.weights, full + 8 * s, 64 * chunk, tap, weight_row);
          if (++s == STAGES) s = 0, parity ^= 1;
          ++tap, ++kx;
          if (kx == p.kernel) kx = 0, ++ky;
          if (tap == taps) tap = 0, ky = 0, ++chunk;
        }
      }
      __syncwarp();
    }
  } else {
    if constexpr (REGS != 0) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGS));
    const int g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4, thread = threadIdx.x % 128;
    // Matrices are named by the low half of their descriptors, which adds up like addresses of 16 bytes.
    const uint32_t a_first = matrix_low(base + (TURNS ? 0 : group * STRIPS * 8192)), b_first = matrix_low(base + A_BYTES);
    const int terms = p.kernel * p.kernel * p.chunks;
    int s = 0;
    uint32_t parity = 0;
    // A group waits for the other to have seen its last stage full: the parity of a barrier tells only
    // neighbouring rounds apart.
    uint32_t turn_parity = group ^ 1, round = 0;
    // Passes by the stages of the other group's tile, whose sum is as long.
    const auto skip = [&] {
      const int at = s + terms, laps = at / STAGES;
      s = at - laps * STAGES;
      parity ^= laps & 1;
    };
    int item = blockIdx.x;
    if (TURNS && group == 1) skip(), item += step;
    for (; item < items; item += TURNS ? 2 * step : step, round ^= 1) {
      const ConvWork w = conv_work<BN>(p, item);
      float acc[STRIPS][BN / 2];
      // Biases are on their way while the products run; as they lie, because converting them would wait.
      constexpr int MORE = (BN + 127) / 128;
      uint32_t ahead[MORE];
#pragma unroll
      for (int i = 0; i < MORE; ++i) {
        const int column = w.column + 128 * i + thread;
        ahead[i] = 0;
        if (KIND == STORE_SUMS || p.bias == nullptr || 128 * i + thread >= BN || column >= p.columns) continue;
        if (p.narrow_bias) ahead[i] = __ldg(static_cast<const uint16_t *>(p.bias) + column);
        else ahead[i] = __ldg(static_cast<const uint32_t *>(p.bias) + column);
      }
      if constexpr (TURNS) {
        barrier_wait(turn + 8 * group, turn_parity);
        turn_parity ^= 1;
      }
      int before = -1;
      for (int k = w.first; k < w.last; ++k) {
        const uint32_t a = a_first + s * (STAGE / 16), b = b_first + s * (STAGE / 16);
        barrier_wait(full + 8 * s, parity);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int m = 0; m < STRIPS; ++m) {
            wgmma_tile<T>(acc[m], matrix(a + m * 512 + i * 2), matrix(b + i * 2), i > 0 || before >= 0);
          }
        }
        wgmma_commit();
        if (before >= 0) {
          wgmma_wait<1>();
          if (lane == 0) barrier_arrive(empty + 8 * before);
        }
        before = s;
        if (++s == STAGES) s = 0, parity ^= 1;
      }
      if (TURNS && lane == 0) barrier_arrive(turn + 8 * (group ^ 1));

      // Work for the time until the last products end. Two sets of biases, used by turns: a warp may be a tile
      // ahead of another, but not two.
      const uint32_t bias = shared_address(biases) + 4 * BN * (2 * group + round);
#pragma unroll
      for (int i = 0; i < MORE; ++i) {
        if (KIND != STORE_SUMS && 128 * i + thread < BN) {
          const float value = p.narrow_bias ? unpack<T>(ahead[i]).x : __uint_as_float(ahead[i]);
          asm volatile("st.shared.f32 [%0], %1;" ::"r"(bias + 4 * (128 * i + thread)), "f"(value) : "memory");
        }
      }
      StoreRows<STRIPS> rows;
      const int column = w.column + 8 * t, below = (KIND == STORE_SUMS ? p.columns : p.out_channels) - column;
#pragma unroll
      for (int i = 0; i < 2 * STRIPS; ++i) {
        const int strip = (TURNS ? 0 : group * STRIPS) + i / 2;
        const long long row = static_cast<long long>(w.row_tile) * BM + strip * 64 + warp * 16 + g + 8 * (i % 2);
        rows.below[i / 2][i % 2] = row < p.rows ? below : 0;
        rows.pixel[i / 2][i % 2] = output_pixel(p, row, w.phase);
        if (KIND == STORE_SUMS) rows.pixel[i / 2][i % 2] += w.split * p.rows * p.phases;
      }
      group_sync(group);
      wgmma_wait<0>();
#pragma unroll
      for (int m = 0; m < STRIPS; ++m) settle(acc[m]);
      if (lane == 0) barrier_arrive(empty + 8 * before);
      if constexpr (TURNS) skip();
      store_tile<T, KIND>(p, acc, rows, bias + 32 * t, column);
    }
  }
}

// With one block a multiprocessor the producer hands its registers to the consumers; with two it is a
// single warp.
#define HOPPER_CONV(NAME, BN, STAGES, TURNS, KIND, BLOCKS)                                  \
  extern "C" __global__ void __launch_bounds__(BLOCKS == 1 ? 384 : 288, BLOCKS)               \
      conv_hopper_##NAME(const __grid_constant__ HopperConvParams args) {                     \
    conv_hopper<ELEMENT, BN, STAGES, TURNS, KIND, BLOCKS == 1 ? 232 : 0>(args);           \
  }

HOPPER_CONV(turns_128x160, 160, 6, true, STORE_WHOLE, 1)
HOPPER_CONV(turns_128x128, 128, 6, true, STORE_WHOLE, 1)
HOPPER_CONV(128x64, 64, 4, false, STORE_WHOLE, 2)
HOPPER_CONV(sums_128x160, 160, 6, false, STORE_SUMS, 1)
HOPPER_CONV(sums_128x64, 64, 4, false, STORE_SUMS, 2)
HOPPER_CONV(gated_turns_128x160, 160, 6, true, STORE_GATED, 1)
HOPPER_CONV(active_128x64, 64, 4, false, STORE_ACTIVE, 2)
HOPPER_CONV(active_128x160, 160, 6, false, STORE_ACTIVE, 1)
