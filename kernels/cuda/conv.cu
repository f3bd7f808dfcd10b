// Convolution for every card: the matrix-unit kernel from sm_80 on, the exact one for f32, and the
// small passes around them. Compile with -DELEMENT=float, __half or __nv_bfloat16.
#include "conv.cuh"

// Where the taps of an output pixel start.
struct Corner {
  const char *image;
  int y, x;
};

template <typename T> __device__ __forceinline__ Corner corner_of(const ConvParams &p, long long row, int phase) {
  const int area = p.out_height * p.out_width, image = static_cast<int>(row / area);
  const int place = static_cast<int>(row - static_cast<long long>(image) * area), line = place / p.out_width;
  const long long first = static_cast<long long>(image) * p.height * p.width * p.channels;
  return {reinterpret_cast<const char *>(static_cast<const T *>(p.x) + first), line * p.stride - p.padding + phase / 2,
          (place - line * p.out_width) * p.stride - p.padding + phase % 2};
}

__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
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
// The residual is read a few steps ahead, as far as registers allow; `biases` of the tile's columns are
// in shared memory, because a read from the second-level cache costs a step a thousand cycles.
template <typename T, int STRIPS, int N>
__device__ __forceinline__ void store_fragments(const ConvParams &p, const float (&c)[STRIPS][N],
                                           const long long (&pixel)[STRIPS][2], uint32_t biases, int split,
                                           int first, int t) {
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
    __syncwarp();  // keeps steps apart: mixed together their values do not fit the registers
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      // Volatile: kept for the next strip they would cost a register each.
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(bias[i]), "=f"(bias[i + 1]), "=f"(bias[i + 2]), "=f"(bias[i + 3])
                   : "r"(biases + 4 * (32 * b + 8 * t + i)));
    }
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

// 128 pixels by 128 channels in 8 warps, 32 terms a step, three steps in flight. Rows of a step are
// 64 bytes in shared memory, their 16-byte pieces exchanged so that eight rows fill all banks.
template <typename T> __device__ __forceinline__ void conv_matrix(const ConvParams &p) {
  constexpr int STAGES = 3, HALF = 128 * 64, STAGE = 2 * HALF;
  extern __shared__ __align__(128) char memory[];
  const uint32_t base = shared_address(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const ConvWork w = conv_work<128>(p, blockIdx.x);
  __shared__ __align__(16) float biases[128];  // written before the first barrier of the loop
  if (threadIdx.x < 128) {
    const int column = w.column + threadIdx.x;
    biases[threadIdx.x] = bias_of<T>(p, column);
  }
  const int taps = p.kernel * p.kernel, piece = threadIdx.x % 4;
  Corner corner[2];
  bool there[2];
  const T *weight[2];
  uint32_t to[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = threadIdx.x / 4 + 64 * i, column = w.column + r;
    const long long row = static_cast<long long>(w.row_tile) * 128 + r;
    there[i] = row < p.rows;
    corner[i] = corner_of<T>(p, there[i] ? row : 0, w.phase);
    weight[i] = column < p.columns ? static_cast<const T *>(p.weight) +
                                         static_cast<long long>(w.phase * p.columns + column) * taps * p.channels
                                   : nullptr;
    to[i] = r * 64 + (piece ^ (r >> 1 & 3)) * 16;
  }
  int chunk = w.first / taps, tap = w.first - chunk * taps, next = w.first;
  const auto fetch = [&] {
    if (next < w.last) {
      const uint32_t at = base + (next - w.first) % STAGES * STAGE;
      const int channel = 32 * chunk + 8 * piece, ky = tap / p.kernel, kx = tap - ky * p.kernel;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int y = corner[i].y + ky, x = corner[i].x + kx;
        const bool inside = there[i] && channel < p.channels && y >= 0 && y < p.height && x >= 0 && x < p.width;
        const long long offset = inside ? (static_cast<long long>(y) * p.width + x) * p.channels + channel : 0;
        copy16(at + to[i], reinterpret_cast<const T *>(corner[i].image) + offset, inside);
        const bool real = weight[i] != nullptr && channel < p.channels;
        copy16(at + HALF + to[i], real ? weight[i] + static_cast<long long>(tap) * p.channels + channel : p.weight, real);
      }
      if (++tap == taps) tap = 0, ++chunk;
    }
    ++next;
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  float acc[4][16];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int i = 0; i < 16; ++i) acc[m][i] = 0.f;
  }
  const int rows = warp / 4 * 64, columns = warp % 4 * 32;
#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) fetch();
  for (int k = w.first; k < w.last; ++k) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
    __syncthreads();
    fetch();
    const uint32_t a_at = base + (k - w.first) % STAGES * STAGE, b_at = a_at + HALF;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t b[2][4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int r = columns + 16 * j + lane % 8 + lane / 16 * 8, part = 2 * i + lane / 8 % 2;
        load_matrices(b[j], b_at + r * 64 + (part ^ (r >> 1 & 3)) * 16);
      }
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        uint32_t a[4];
        const int r = rows + 16 * m + lane % 16, part = 2 * i + lane / 16;
        load_matrices(a, a_at + r * 64 + (part ^ (r >> 1 & 3)) * 16);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float(&c)[4] = *reinterpret_cast<float(*)[4]>(&acc[m][4 * j]);
          mma16<T>(c, a[0], a[1], a[2], a[3], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
  long long pixel[4][2];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const long long row = static_cast<long long>(w.row_tile) * 128 + rows + 16 * m + g + 8 * h;
      pixel[m][h] = row < p.rows ? output_pixel(p, row, w.phase) : -1;
    }
  }
  store_fragments<T>(p, acc, pixel, shared_address(biases + columns), w.split, w.column + columns, t);
}

// f32: 128 pixels by 64 channels, 16 terms a step; sums by blocks of 256 terms. The weight is in plain
// order here, `chunks` is unused and any number of channels is right.
__device__ __forceinline__ void conv_plain(const ConvParams &p) {
  __shared__ float a[16][128 + 4], b[16][64 + 4];
  const ConvWork w = conv_work<64>(p, blockIdx.x);
  const int taps = p.kernel * p.kernel, terms = taps * p.channels;
  const int part = threadIdx.x % 16, first = threadIdx.x / 16;
  Corner corner[8];
  bool there[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const long long row = static_cast<long long>(w.row_tile) * 128 + first + 16 * i;
    there[i] = row < p.rows;
    corner[i] = corner_of<float>(p, there[i] ? row : 0, w.phase);
  }
  float total[8][4] = {}, sum[8][4] = {};
  for (int k0 = 0; k0 < terms; k0 += 16) {
    const int k = k0 + part, tap = k / p.channels, channel = k - tap * p.channels;
    const int ky = tap / p.kernel, kx = tap - ky * p.kernel;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int y = corner[i].y + ky, x = corner[i].x + kx;
      const bool inside = there[i] && k < terms && y >= 0 && y < p.height && x >= 0 && x < p.width;
      const float *from = reinterpret_cast<const float *>(corner[i].image);
      a[part][first + 16 * i] = inside ? from[(static_cast<long long>(y) * p.width + x) * p.channels + channel] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = w.column + first + 16 * i;
      const long long at = static_cast<long long>(w.phase * p.columns + column) * terms + k;
      b[part][first + 16 * i] = column < p.columns && k < terms ? static_cast<const float *>(p.weight)[at] : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int q = 0; q < 16; ++q) {
      const float4 x0 = *reinterpret_cast<const float4 *>(&a[q][8 * first]);
      const float4 x1 = *reinterpret_cast<const float4 *>(&a[q][8 * first + 4]);
      const float4 y = *reinterpret_cast<const float4 *>(&b[q][4 * part]);
      const float xs[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(xs[i], ys[j], sum[i][j]);
      }
    }
    if (k0 % 256 == 240 || k0 + 16 >= terms) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) total[i][j] += sum[i][j], sum[i][j] = 0.f;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const long long row = static_cast<long long>(w.row_tile) * 128 + 8 * first + i;
    if (row >= p.rows) continue;
    const long long at = output_pixel(p, row, w.phase) * p.out_channels;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = w.column + 4 * part + j;
      if (column >= p.out_channels) continue;
      float y = conv_activate(p, total[i][j] + bias_of<float>(p, column));
      if (p.residual != nullptr) y += static_cast<const float *>(p.residual)[at + column];
      static_cast<float *>(p.out)[at + column] = y;
    }
  }
}

// Neighbourhoods as rows of a matrix, for inputs too narrow to gather by the tap: `out` is
// [rows, columns] with kernel² · channels terms and zeros behind them; eight terms a thread.
template <typename T> __device__ __forceinline__ void conv_patches(const ConvParams &p) {
  const int groups = p.columns / 8, terms = p.kernel * p.kernel * p.channels;
  const long long count = p.rows * groups, step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long item = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; item < count; item += step) {
    const long long row = item / groups;
    const int first = static_cast<int>(item - row * groups) * 8;
    const Corner corner = corner_of<T>(p, row, 0);
    __align__(16) T values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int k = first + i, tap = k / p.channels, channel = k - tap * p.channels;
      const int ky = tap / p.kernel, y = corner.y + ky, x = corner.x + tap - ky * p.kernel;
      const bool inside = k < terms && y >= 0 && y < p.height && x >= 0 && x < p.width;
      const T *from = reinterpret_cast<const T *>(corner.image);
      values[i] = inside ? from[(static_cast<long long>(y) * p.width + x) * p.channels + channel] : from_float<T>(0.f);
    }
    *reinterpret_cast<uint4 *>(static_cast<T *>(p.out) + row * p.columns + first) = *reinterpret_cast<uint4 *>(values);
  }
}

// Adds up the parts of split sums; eight channels a thread.
template <typename T> __device__ __forceinline__ void conv_finish(const ConvParams &p) {
  const int groups = p.columns / 8;
  const long long pixels = p.rows * p.phases, count = pixels * groups;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long item = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; item < count; item += step) {
    const long long pixel = item / groups;
    const int column = static_cast<int>(item - pixel * groups) * 8;
    if (column >= p.out_channels) continue;
    float v[8] = {}, bias[8];
    for (int split = 0; split < p.splits; ++split) {
      const float *from = p.partial + (split * pixels + pixel) * p.columns + column;
      const float4 a = __ldg(reinterpret_cast<const float4 *>(from)), b = __ldg(reinterpret_cast<const float4 *>(from + 4));
      v[0] += a.x, v[1] += a.y, v[2] += a.z, v[3] += a.w, v[4] += b.x, v[5] += b.y, v[6] += b.z, v[7] += b.w;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) bias[i] = bias_of<T>(p, column + i);
    store_channels<T>(p, pixel, column, v, bias, load_residual<T>(p, pixel, column));
  }
}

// Few output channels: `partial` holds [pixels of the input, columns], what each pixel gives to output channel c
// through tap k in column k · out_channels + c; an output is the sum over its taps.
template <typename T> __device__ __forceinline__ void conv_collect(const ConvParams &p) {
  const long long count = p.rows * p.out_channels, step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long item = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; item < count; item += step) {
    const long long row = item / p.out_channels, line = row / p.out_width, image = line / p.out_height;
    const int c = static_cast<int>(item - row * p.out_channels);
    const int y0 = static_cast<int>(line - image * p.out_height) * p.stride - p.padding;
    const int x0 = static_cast<int>(row - line * p.out_width) * p.stride - p.padding;
    float sum = bias_of<T>(p, c);
    for (int ky = 0; ky < p.kernel; ++ky) {
      const int y = y0 + ky;
      if (y < 0 || y >= p.height) continue;
      for (int kx = 0; kx < p.kernel; ++kx) {
        const int x = x0 + kx;
        if (x < 0 || x >= p.width) continue;
        const long long pixel = (image * p.height + y) * p.width + x;
        sum += __ldg(p.partial + pixel * p.columns + (ky * p.kernel + kx) * p.out_channels + c);
      }
    }
    sum = conv_activate(p, sum);
    if (p.residual != nullptr) sum += to_float(static_cast<const T *>(p.residual)[item]);
    static_cast<T *>(p.out)[item] = from_float<T>(sum);
  }
}

template <typename T> struct Conv {
  static __device__ __forceinline__ void tile(const ConvParams &p) { conv_matrix<T>(p); }
  static __device__ __forceinline__ void patches(const ConvParams &p) { conv_patches<T>(p); }
  static __device__ __forceinline__ void finish(const ConvParams &p) { conv_finish<T>(p); }
  static __device__ __forceinline__ void collect(const ConvParams &p) { conv_collect<T>(p); }
};
// f32 needs none of the small passes.
template <> struct Conv<float> {
  static __device__ __forceinline__ void tile(const ConvParams &p) { conv_plain(p); }
  static __device__ __forceinline__ void patches(const ConvParams &) {}
  static __device__ __forceinline__ void finish(const ConvParams &) {}
  static __device__ __forceinline__ void collect(const ConvParams &) {}
};

#define CONV(NAME)                                                                                               \
  extern "C" __global__ void __launch_bounds__(256, sizeof(ELEMENT) == 2 ? 2 : 1)       \
      conv_##NAME(const __grid_constant__ ConvParams p) {                                                        \
    Conv<ELEMENT>::NAME(p);                                                                                      \
  }
CONV(tile)
CONV(patches)
CONV(finish)
CONV(collect)
