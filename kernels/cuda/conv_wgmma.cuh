// Warp-group products with both operands in shared memory, terms contiguous, for the tile widths of
// conv_hopper.cu: c (+)= a b for 64 rows, 16 terms and twice as many columns as `c` has registers.
#pragma once
#include "wgmma.cuh"

#define WREGS0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WREGS1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WREGS2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WREGS3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WREGS4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WACC(i)                                                                                       \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]),     \
      "+f"(c[i + 7]), "+f"(c[i + 8]), "+f"(c[i + 9]), "+f"(c[i + 10]), "+f"(c[i + 11]), "+f"(c[i + 12]),          \
      "+f"(c[i + 13]), "+f"(c[i + 14]), "+f"(c[i + 15])
#define WGMMA_TYPED(TYPE, N, REGS, A, B, MORE, ...)                                                         \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " MORE ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE \
               "." TYPE " {" REGS "}, " A ", " B ", p, 1, 1, 0, 0; }"                                          \
               : __VA_ARGS__                                                                                   \
               : "l"(a), "l"(b), "r"(more))
#define WGMMA_TILE(COUNT, N, REGS, A, B, MORE, ...)                                             \
  template <typename T>                                                                         \
  __device__ __forceinline__ void wgmma_tile(float (&c)[COUNT], uint64_t a, uint64_t b, int more) { \
    if constexpr (IS_HALF<T>) {                                                                 \
      WGMMA_TYPED("f16", N, REGS, A, B, MORE, __VA_ARGS__);                                     \
    } else {                                                                                    \
      WGMMA_TYPED("bf16", N, REGS, A, B, MORE, __VA_ARGS__);                                    \
    }                                                                                           \
  }

WGMMA_TILE(32, "64", WREGS0 ", " WREGS1, "%32", "%33", "%34",
           WACC(0), WACC(16))
WGMMA_TILE(64, "128", WREGS0 ", " WREGS1 ", " WREGS2 ", " WREGS3, "%64", "%65", "%66",
           WACC(0), WACC(16), WACC(32), WACC(48))
WGMMA_TILE(80, "160", WREGS0 ", " WREGS1 ", " WREGS2 ", " WREGS3 ", " WREGS4, "%80", "%81", "%82",
           WACC(0), WACC(16), WACC(32), WACC(48), WACC(64))
#undef WGMMA_TILE
#undef WGMMA_TYPED
#undef WACC
#undef WREGS0
#undef WREGS1
#undef WREGS2
#undef WREGS3
#undef WREGS4
