// SPDX-License-Identifier: Apache-2.0
// Arithmetic on sizes that come from untrusted headers: overflow poisons the value instead of
// wrapping, so a whole expression is judged once, at its end.

#pragma once

#include <cstdint>
#include <optional>

namespace millstream {

/// A uint64 whose + and * remember an overflow. Test `value()` before use.
class CheckedSize {
 public:
  constexpr CheckedSize(std::uint64_t value)
      : value_(value) {}  // NOLINT(google-explicit-constructor)

  friend constexpr CheckedSize operator+(CheckedSize a, CheckedSize b) {
    CheckedSize sum(0);
    sum.overflow_ =
        __builtin_add_overflow(a.value_, b.value_, &sum.value_) || a.overflow_ || b.overflow_;
    return sum;
  }
  friend constexpr CheckedSize operator*(CheckedSize a, CheckedSize b) {
    CheckedSize product(0);
    product.overflow_ =
        __builtin_mul_overflow(a.value_, b.value_, &product.value_) || a.overflow_ || b.overflow_;
    return product;
  }
  /// Rounds up to a multiple of `alignment`. REQUIRES: a power of two.
  constexpr CheckedSize AlignedUp(std::uint64_t alignment) const {
    CheckedSize sum = *this + (alignment - 1);
    sum.value_ &= ~(alignment - 1);
    return sum;
  }

  /// The value, or nullopt if any step overflowed.
  constexpr std::optional<std::uint64_t> value() const {
    return overflow_ ? std::nullopt : std::optional(value_);
  }
  /// Whether the value is known and at most `limit`.
  constexpr bool Fits(std::uint64_t limit) const { return !overflow_ && value_ <= limit; }

 private:
  std::uint64_t value_;
  bool overflow_ = false;
};

}  // namespace millstream
