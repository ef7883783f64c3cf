#pragma once

#include "op_entry.h"

namespace jr {

// The operator jr_onnx::DrawKappa() -> float scalar: one draw per run, uniform on [low, high).
OpEntry draw_kappa_entry(const Runtime& runtime);

}  // namespace jr
