// bias (+ residual) + J in one pass on the GPU; no CUDA type appears here, so that the host compiler can read it.
#pragma once

#include <cstdint>

#include "cuda_kernel.h"

namespace jr {

// A tensor whose channels lie `inner` elements apart: for (N, C, H, W) inner is H * W, for (N, H, W, C) it is 1.
struct Channels {
  std::uint64_t count;     // elements of the tensor, a multiple of inner * channels
  std::uint64_t inner;     // elements of one channel that lie together
  std::uint64_t channels;  // C
};

// Queues out[i] = J((in[i] + bias[c]) + residual[i]) on a CUDA stream, every sum rounded to the element type as the
// separate operators round it; `residual` may be null, and the site's cap is +inf where there is none. `in`, `residual`
// and `out` may be the same buffer. Returns null, or the error of the launch as a text that needs no freeing.
template <class Site>
const char* launch_bias_pass(void* stream, const typename Site::Bits* in, const typename Site::Bits* bias,
                             const typename Site::Bits* residual, typename Site::Bits* out, const Channels& shape,
                             const Site& site);

}  // namespace jr
