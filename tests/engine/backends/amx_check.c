// The matrix unit beside its emulation: random tiles, numbers of every size and denormal ones, equal in every bit or not.
// `amx_check COUNT` prints how many of the products' elements differ; exit code 2 where this process gets no matrix unit.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "amx.h"
#include "amx_emulated.h"

static uint32_t random_word(void) { return (uint32_t)random() << 16 ^ (uint32_t)random(); }

// Two bfloat16, their exponents within 16 of that of 1 or, one time in four, of the smallest's.
static uint32_t random_pair(void)
{
    uint32_t mask = 0x807f807f, exponents = random() % 4 ? 0x3c003c00 : 0;
    return (random_word() & (mask | 0x0f800f80)) + exponents;
}

int main(int count, char **arguments)
{
    if (count != 2 || !amx_permitted()) return 2;
    long products = atol(arguments[1]), different = 0;
    static AmxTile a, b, sum, emulated;
    for (long n = 0; n < products; n++) {
        for (int i = 0; i < 256; i++) {
            a.row[i / 16][i % 16] = random_pair(), b.row[i / 16][i % 16] = random_pair();
            emulated.row[i / 16][i % 16] = sum.row[i / 16][i % 16] = random_pair();
        }
        amx_begin();
        amx_load(0, &sum, AMX_ROW_BYTES);
        amx_load(1, &a, AMX_ROW_BYTES);
        amx_load(2, &b, AMX_ROW_BYTES);
        amx_multiply_bf16(0, 1, 2);
        amx_store(0, &sum, AMX_ROW_BYTES);
        amx_end();
        emulate_multiply_bf16(&emulated, &a, &b);
        for (int i = 0; i < 256; i++) different += sum.row[i / 16][i % 16] != emulated.row[i / 16][i % 16];
    }
    printf("%ld of %ld elements differ\n", different, 256 * products);
    return different != 0;
}
