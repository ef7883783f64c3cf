// A tensor seen as (outer, channels, inner), to which one value for each channel belongs.
#pragma once

#include <cstdint>

namespace jr {

// A tensor whose channels lie `inner` elements apart: for (N, C, H, W) inner is H * W, for (N, H, W, C) it is 1.
struct Channels {
  std::uint64_t count = 0;     // elements of the tensor, a multiple of inner * channels
  std::uint64_t inner = 1;     // elements of one channel that lie together
  std::uint64_t channels = 1;  // C
};

}  // namespace jr
