// Convolution on Hopper: the copy engine gathers pixels (its im2col mode) and weights, warp-group
// products multiply them.
//
// A persistent block has one producer warp and two consumer warp groups. The groups share a tile, each
// with half the pixels; or, where sums are short, they take tiles in turn, so that one stores while
// the other multiplies. Terms go channel block by channel block with the taps inside, so that the
// pixels of a block come from device memory once and from the second-level cache for the other taps.
// Compile for sm_90a with -DELEMENT=__half or __nv_bfloat16.
#include <cuda.h>

#include "conv.cuh"
#include "conv_wgmma.cuh"
#include "mbarrier.cuh"

struct HopperConvParams {
  CUtensorMap pixels;   // [n, height, width, channels] by columns of pixels, 64 channels wide
  CUtensorMap weights;  // [phases · columns, taps, channels], boxes of rows by 64 channels
  ConvParams p;
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
template <typename T, int BM, int BN, int STAGES, bool TURNS, int REGS>
__device__ __forceinline__ void conv_hopper(const HopperConvParams &args) {
  constexpr int STRIPS = BM / (TURNS ? 64 : 128), A_BYTES = BM * 128, STAGE = A_BYTES + BN * 128;
  const ConvParams &p = args.p;
  extern __shared__ char memory[];
  const uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t full = base + STAGES * STAGE, empty = full + 8 * STAGES, turn = empty + 8 * STAGES;
  float *biases = reinterpret_cast<float *>(memory + (base - shared_address(memory)) + STAGES * (STAGE + 16) + 16);
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
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
      if (p.residual != nullptr && p.partial == nullptr) prefetch_residual<T, BM, BN>(p, w, lane);
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
          copy_pixels(at, &args.pixels, full + 8 * s, 64 * chunk, x, y, image, dx + kx, dy + ky);
          copy_weights(at + A_BYTES, &args.weights, full + 8 * s, 64 * chunk, tap, weight_row);
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
    const int g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4;
    int s = 0;
    uint32_t parity = 0;
    // Passes by the stages of the other group's tile.
    const auto skip = [&](int item) {
      if (item >= items) return;
      const ConvWork w = conv_work<BN>(p, item);
      const int at = s + w.last - w.first, laps = at / STAGES;
      s = at - laps * STAGES;
      parity ^= laps & 1;
    };
    // A group waits for the other to have seen its last stage full: the parity of a barrier tells only
    // neighbouring rounds apart.
    uint32_t turn_parity = group ^ 1;
    int item = blockIdx.x;
    if (TURNS && group == 1) skip(item), item += step;
    for (; item < items; item += TURNS ? 2 * step : step) {
      const ConvWork w = conv_work<BN>(p, item);
      float acc[STRIPS][BN / 2];
      int before = -1;
      // The group's own copy of the tile's biases, read at its end.
      float *bias = biases + group * BN;
      group_sync(group);
      for (int i = threadIdx.x % 128; i < BN; i += 128) {
        bias[i] = p.bias != nullptr && w.column + i < p.columns ? __ldg(p.bias + w.column + i) : 0.f;
      }
      if constexpr (TURNS) {
        barrier_wait(turn + 8 * group, turn_parity);
        turn_parity ^= 1;
      }
      for (int k = w.first; k < w.last; ++k) {
        const uint32_t a = base + s * STAGE + (TURNS ? 0 : group * STRIPS * 8192), b = base + s * STAGE + A_BYTES;
        barrier_wait(full + 8 * s, parity);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int m = 0; m < STRIPS; ++m) {
            wgmma_tile<T>(acc[m], matrix_at(a + m * 8192 + i * 32, 16), matrix_at(b + i * 32, 16), i > 0 || before >= 0);
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
      wgmma_wait<0>();
#pragma unroll
      for (int m = 0; m < STRIPS; ++m) settle(acc[m]);
      if (lane == 0) barrier_arrive(empty + 8 * before);
      if constexpr (TURNS) skip(item + step);

      long long pixel[STRIPS][2];
#pragma unroll
      for (int m = 0; m < STRIPS; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int strip = (TURNS ? 0 : group * STRIPS) + m;
          const long long row = static_cast<long long>(w.row_tile) * BM + strip * 64 + warp * 16 + g + 8 * h;
          pixel[m][h] = row < p.rows ? output_pixel(p, row, w.phase) : -1;
        }
      }
      group_sync(group);
      store_tile<T, true, STRIPS, BN / 2>(p, acc, pixel, shared_address(bias), w.split, w.column, t);
    }
  }
}

// With one block a multiprocessor the producer hands its registers to the consumers; with two it is a
// single warp.
#define HOPPER_CONV(NAME, BM, BN, STAGES, TURNS, BLOCKS)                                        \
  extern "C" __global__ void __launch_bounds__(BLOCKS == 1 ? 384 : 288, BLOCKS)               \
      conv_hopper_##NAME(const __grid_constant__ HopperConvParams args) {                     \
    conv_hopper<ELEMENT, BM, BN, STAGES, TURNS, BLOCKS == 1 ? 232 : 0>(args);                 \
  }

HOPPER_CONV(256x160, 256, 160, 4, false, 1)
HOPPER_CONV(256x128, 256, 128, 4, false, 1)
HOPPER_CONV(128x256, 128, 256, 4, false, 1)
HOPPER_CONV(turns_128x160, 128, 160, 6, true, 1)
HOPPER_CONV(turns_128x128, 128, 128, 7, true, 1)
HOPPER_CONV(128x160, 128, 160, 6, false, 1)
HOPPER_CONV(128x64, 128, 64, 4, false, 2)
