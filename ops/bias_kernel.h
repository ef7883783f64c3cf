// bias (+ residual) + J in one pass on the GPU, and J with a kappa per channel; no CUDA type appears here, so that the host
// compiler can read it.
#pragma once

#include <cstdint>

#include "channels.h"
#include "cuda_kernel.h"

namespace jr {

// Queues out[i] = J((in[i] + bias[c]) + residual[i]) on a CUDA stream, every sum rounded to the element type as the
// separate operators round it; `residual` may be null, and the site's cap is +inf where there is none. `in`, `residual`
// and `out` may be the same buffer. Returns null, or the error of the launch as a text that needs no freeing.
template <class Site>
const char* launch_bias_pass(void* stream, const typename Site::Bits* in, const typename Site::Bits* bias,
                             const typename Site::Bits* residual, typename Site::Bits* out, const Channels& shape,
                             const Site& site);

// Queues out[i] = J(in[i]) with the kappa of the element's channel; otherwise as above.
template <class E>
const char* launch_channel_pass(void* stream, const typename E::Bits* in, typename E::Bits* out, const Channels& shape,
                                const KappaPerChannel<E>& site);

}  // namespace jr
