#include "kappa.h"

#include "element.h"

#include <sys/random.h>

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace jr {
namespace {

std::string number(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

}  // namespace

bool read_entropy(void* out, std::size_t size) {
  auto* bytes = static_cast<unsigned char*>(out);
  while (size > 0) {
    const ssize_t got = getrandom(bytes, size, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    bytes += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool draw_uniform(float low, float high, float* out) {
  const double width = static_cast<double>(high) - static_cast<double>(low);
  do {
    std::uint64_t bits = 0;
    if (!read_entropy(&bits, sizeof bits)) return false;
    const double unit = std::ldexp(static_cast<double>(bits >> 11), -53);
    *out = static_cast<float>(static_cast<double>(low) + unit * width);
  } while (*out >= high);  // rounding to float can reach the end that is excluded
  return true;
}

std::string complain_about_kappa(float value, const char* name) {
  // By its sign bit, for a thread that flushes denormals to zero takes a negative one for 0.
  if (std::isfinite(value) && !std::signbit(without_sign_of_zero(value))) return {};
  return std::string(name) + " is " + number(value) + ", expected a finite number >= 0";
}

std::string complain_about_range(float low, float high, const char* low_name, const char* high_name) {
  std::string wrong = complain_about_kappa(low, low_name);
  if (wrong.empty()) wrong = complain_about_kappa(high, high_name);
  if (wrong.empty() && !(low < high)) {
    wrong = std::string(low_name) + " is " + number(low) + " and " + high_name + " is " + number(high) +
            ", expected " + low_name + " < " + high_name;
  }
  return wrong;
}

bool read_float(const ort::Api* api, const ort::KernelInfo* info, const char* name, float* out) {
  ort::Status* status = api->KernelInfoGetAttribute_float(info, name, out);
  if (status == nullptr) return true;
  api->ReleaseStatus(status);
  return false;
}

bool read_integer(const ort::Api* api, const ort::KernelInfo* info, const char* name, std::int64_t* out) {
  ort::Status* status = api->KernelInfoGetAttribute_int64(info, name, out);
  if (status == nullptr) return true;
  api->ReleaseStatus(status);
  return false;
}

std::string read_attributes(const ort::Api* api, const ort::KernelInfo* info, bool has_kappa_input,
                            JumpAttributes* out) {
  JumpAttributes& found = *out;
  found.has_kappa = read_float(api, info, "kappa", &found.kappa);
  const bool has_low = read_float(api, info, "kappa_low", &found.low);
  const bool has_high = read_float(api, info, "kappa_high", &found.high);
  found.has_cap = read_float(api, info, "cap", &found.cap);
  found.has_range = has_low && has_high;
  if (has_low != has_high) {
    return std::string("found only ") + (has_low ? "kappa_low" : "kappa_high") +
           ", expected both float attributes kappa_low and kappa_high";
  }
  if (found.has_kappa + found.has_range + has_kappa_input > 1) {
    return "kappa is given more than once, expected one of the float attribute kappa, the pair kappa_low and "
           "kappa_high, and the second input";
  }
  if (!found.has_kappa && !found.has_range && !has_kappa_input) {
    return "kappa is missing, expected the float attribute kappa, the pair kappa_low and kappa_high, or a second "
           "input";
  }
  if (found.has_cap && !(found.cap >= 0)) return "cap is " + number(found.cap) + ", expected a number >= 0";
  if (read_integer(api, info, "channel_block", &found.channel_block)) {
    if (found.channel_block < 1) {
      return "channel_block is " + std::to_string(found.channel_block) + ", expected a number >= 1";
    }
    if (!has_kappa_input) return "channel_block is given without a second input that holds a kappa for each channel";
  } else {
    found.channel_block = 0;
  }
  if (found.has_range) return complain_about_range(found.low, found.high, "kappa_low", "kappa_high");
  return found.has_kappa ? complain_about_kappa(found.kappa, "kappa") : std::string{};
}

}  // namespace jr
