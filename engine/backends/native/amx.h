// AMX, the matrix unit of Intel processors from Sapphire Rapids on: eight tile registers of 16 rows of 64 bytes, and
// instructions that multiply two of them and add to a third.
//
// The instructions are inline assembly, because GCC 12's intrinsics do not tell the compiler which memory a tile load reads:
// it deletes stores before it. Tile numbers must be literals, so these are macros. Built with -DAMX_EMULATED, the same macros
// run amx_emulated.h, which gives the same bits on any processor, thousands of times slower; tests use it.

#pragma once

#include <stdint.h>
#include <string.h>

#if defined(AMX_EMULATED) || (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__))
#define AMX
#endif

enum { AMX_ROWS = 16, AMX_ROW_BYTES = 64 };  // of a tile
enum { AMX_WORDS = AMX_ROW_BYTES / 4 };      // 32-bit words of a row: 16 floats, or 16 pairs of bfloat16
enum { AMX_TILE_WORDS = AMX_ROWS * AMX_WORDS };
enum { AMX_OVERRUN = 48 };  // positions beyond the last activations that tiles of them read

#if defined(AMX_EMULATED)

#include "amx_emulated.h"

static int amx_permitted(void) { return 1; }
static void amx_begin(void) {}
static void amx_end(void) {}
#define amx_zero(N) memset(amx_tiles + N, 0, sizeof *amx_tiles)
#define amx_load(N, P, STRIDE) emulate_load(amx_tiles + N, P, STRIDE)
#define amx_store(N, P, STRIDE) emulate_store(amx_tiles + N, P, STRIDE)
#define amx_multiply_bf16(C, A, B) emulate_multiply_bf16(amx_tiles + C, amx_tiles + A, amx_tiles + B)

#elif defined(AMX)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// Ask Linux for the tile registers, once for the process. It refuses where a thread has a small signal stack or a seccomp
// filter forbids the call, and CPUID shows AMX in virtual machines without tile palettes: so CPUID alone proves nothing.
static int amx_permitted(void)
{
    enum { GET_PERMISSION = 0x1022, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, PALETTES = 0x1d };
    unsigned a = 0, b, c, d;
    if (!__get_cpuid_count(PALETTES, 0, &a, &b, &c, &d) || a < 1) return 0;
    unsigned long permitted = 0;
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return 0;
    return !syscall(SYS_arch_prctl, GET_PERMISSION, &permitted) && permitted >> TILE_DATA & 1;
}

// Configure all eight tiles as 16 x 64 bytes on this thread; amx_end must follow. Costs 70 ns.
static void amx_begin(void)
{
    struct { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = AMX_ROW_BYTES, config.rows[i] = AMX_ROWS;
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

// Without it every signal and context switch of the thread would save 8 KB more.
static void amx_end(void) { __asm__ volatile("tilerelease" : : : "memory"); }

#define amx_zero(N) __asm__ volatile("tilezero %%tmm" #N : :)
#define amx_load(N, P, STRIDE) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #N : : "r"(P), "r"((size_t)(STRIDE)) : "memory")
#define amx_store(N, P, STRIDE) \
    __asm__ volatile("tilestored %%tmm" #N ", (%0,%1,1)" : : "r"(P), "r"((size_t)(STRIDE)) : "memory")
#define amx_multiply_bf16(C, A, B) __asm__ volatile("tdpbf16ps %%tmm" #B ", %%tmm" #A ", %%tmm" #C : :)

#endif
