#pragma once

#include <vector>

#include "op_entry.h"

namespace jr {

// Appends JumpRelu of every element type for the CPU provider.
void add_cpu_entries(const Runtime& runtime, std::vector<OpEntry>* out);

}  // namespace jr
