// The element-wise pass on the GPU; no CUDA type appears here, so that the host compiler can read it.
#pragma once

#include <cstdint>

#include "jump_relu.h"

namespace jr {

// Queues out[i] = J(in[i]) for i < count on a CUDA stream. `in` and `out` are device memory, the same buffer or apart.
// Returns null, or the error of the launch as a text that needs no freeing. Instantiated for int16_t, int32_t and
// int64_t.
template <class Bits>
const char* launch_pass(void* stream, const Bits* in, Bits* out, std::uint64_t count, const Jump<Bits>& jump,
                        bool has_cap);

// Whether the stream is being captured into a CUDA graph, which would freeze this run's kappa into every replay.
// Returns null, or the error of the query.
const char* is_capturing(void* stream, bool* out);

}  // namespace jr
