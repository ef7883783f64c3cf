// The element-wise pass on the CPU: one contiguous run of elements, no knowledge of ONNX Runtime.
#pragma once

#include <cstddef>

#include "jump_relu.h"

namespace jr {

// Instruction sets the pass is compiled for. `kBaseline` is what the compiler may assume everywhere: SSE2 on
// x86-64, NEON on AArch64.
enum class Isa { kBaseline, kAvx2, kAvx512 };

// Returns the best instruction set of this CPU, or a lesser one named by the environment variable JR_ONNX_ISA
// (baseline, avx2, avx512). A name that this CPU lacks, or an unknown one, changes nothing.
Isa choose_isa();

// Whether this CPU (and the compiler that built the library) can run `isa`.
bool supports(Isa isa);

// Computes out[i] = J(in[i]) for i < count; `in` and `out` are the same buffer or do not overlap.
template <class Bits>
using Pass = void (*)(const Bits* in, Bits* out, std::size_t count, const Jump<Bits>& jump);

// Returns the pass for an instruction set that is supported; instantiated for int16_t, int32_t and int64_t.
template <class Bits>
Pass<Bits> select_pass(Isa isa, bool has_cap);

// Computes out[i] = J(in[i]) for i < count, where the jump of element i has the offset `offsets[i % period]`; see `Jump`.
// `in` and `out` are the same buffer or do not overlap.
template <class Bits>
using RowPass = void (*)(const Bits* in, Bits* out, std::size_t count, const Bits* offsets, std::size_t period,
                         Bits infinity, Bits cap);

// Returns that pass, likewise.
template <class Bits>
RowPass<Bits> select_row_pass(Isa isa, bool has_cap);

}  // namespace jr
