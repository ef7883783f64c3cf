// The ChaCha20 block function (RFC 8439, section 2.3): a counter-based generator whose output says nothing of its key.
//
// A counter alone tells one draw from the next, so a GPU can draw without a host: captured CUDA graphs advance the
// counter in device memory at every replay.
#pragma once

#include <cstdint>

#include "jump_relu.h"

namespace jr {

struct ChaChaKey {
  std::uint32_t word[8];
};

JR_HOST_DEVICE std::uint32_t rotate_left(std::uint32_t value, int bits) {
  return (value << bits) | (value >> (32 - bits));
}

JR_HOST_DEVICE void chacha_quarter(std::uint32_t* state, int a, int b, int c, int d) {
  state[a] += state[b];
  state[d] = rotate_left(state[d] ^ state[a], 16);
  state[c] += state[d];
  state[b] = rotate_left(state[b] ^ state[c], 12);
  state[a] += state[b];
  state[d] = rotate_left(state[d] ^ state[a], 8);
  state[c] += state[d];
  state[b] = rotate_left(state[b] ^ state[c], 7);
}

// `position` is words 12 to 15 of the state: the RFC's 32-bit counter and 96-bit nonce.
JR_HOST_DEVICE void chacha20_block(const ChaChaKey& key, const std::uint32_t (&position)[4], std::uint32_t (&out)[16]) {
  const std::uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};  // "expand 32-byte k"
  std::uint32_t start[16];
  for (int i = 0; i < 4; ++i) start[i] = constants[i];
  for (int i = 0; i < 8; ++i) start[4 + i] = key.word[i];
  for (int i = 0; i < 4; ++i) start[12 + i] = position[i];
  for (int i = 0; i < 16; ++i) out[i] = start[i];
  for (int round = 0; round < 10; ++round) {
    chacha_quarter(out, 0, 4, 8, 12);
    chacha_quarter(out, 1, 5, 9, 13);
    chacha_quarter(out, 2, 6, 10, 14);
    chacha_quarter(out, 3, 7, 11, 15);
    chacha_quarter(out, 0, 5, 10, 15);
    chacha_quarter(out, 1, 6, 11, 12);
    chacha_quarter(out, 2, 7, 8, 13);
    chacha_quarter(out, 3, 4, 9, 14);
  }
  for (int i = 0; i < 16; ++i) out[i] += start[i];
}

}  // namespace jr
