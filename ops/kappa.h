// Where a node's kappa comes from, and what counts as a kappa.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime.h"

namespace jr {

// Fills memory from the operating system's entropy. False if there is none.
bool read_entropy(void* out, std::size_t size);

// One number drawn uniformly from [low, high), from the operating system's entropy. Keeps no state, so threads and
// forked processes never share a stream. False if the system gives no entropy.
bool draw_uniform(float low, float high, float* out);

// The attributes of a JumpRelu node. Exactly one of `kappa` and the range is set, or neither where kappa is an input.
struct JumpAttributes {
  bool has_kappa = false;
  bool has_range = false;
  bool has_cap = false;
  float kappa = 0;
  float low = 0;
  float high = 0;
  float cap = 0;
  std::int64_t channel_block = 0;  // channels that lie together in blocks; 0 where X is not in such a layout
};

// Empty if `value` may be a kappa, else what is wrong with it: "kappa is -1, expected a finite number >= 0".
std::string complain_about_kappa(float value, const char* name);

// Empty if [low, high) is a range of kappas.
std::string complain_about_range(float low, float high, const char* low_name, const char* high_name);

// Reads a float attribute; false if the node has none of that name and type.
bool read_float(const ort::Api* api, const ort::KernelInfo* info, const char* name, float* out);

// Reads an integer attribute, likewise.
bool read_integer(const ort::Api* api, const ort::KernelInfo* info, const char* name, std::int64_t* out);

// Reads and checks the attributes; the result is empty, or what is wrong with them.
std::string read_attributes(const ort::Api* api, const ort::KernelInfo* info, bool has_kappa_input,
                            JumpAttributes* out);

}  // namespace jr
