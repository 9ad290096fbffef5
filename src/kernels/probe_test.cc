// SPDX-License-Identifier: Apache-2.0
#include "kernels/probe.h"

#include <gtest/gtest.h>

#include <cmath>

namespace millstream::kernels {
namespace {

constexpr std::size_t kBuffer = std::size_t{8} << 20;

TEST(ProbeTest, MeasuresEveryInstructionSetThatThereIs) {
  Team team(2);
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (!IsSupported(isa)) continue;
    const Peaks peaks = MeasurePeaks(isa, team, kBuffer);
    for (const double peak :
         {peaks.f32_flops, peaks.bf16_flops, peaks.int8_ops, peaks.bytes_per_second}) {
      EXPECT_TRUE(std::isfinite(peak)) << IsaName(isa);
      EXPECT_GT(peak, 1e6) << IsaName(isa);  // of a machine from the last thirty years
    }
  }
}

TEST(ProbeTest, DotsOfBytesAreNotFarSlowerThanFloats) {
  if (!IsSupported(Isa::kAvx512Bf16)) GTEST_SKIP() << "the machine has no such instructions";
  Team team(1);
  const Peaks peaks = MeasurePeaks(Isa::kAvx512Bf16, team, kBuffer);
  EXPECT_GT(peaks.int8_ops, peaks.f32_flops / 2);  // 4 times as many, undisturbed
}

TEST(ProbeTest, ABufferSmallerThanItsPartsWillDo) {
  Team team(3);
  EXPECT_GT(MeasurePeaks(Isa::kReference, team, 1).bytes_per_second, 0);
}

}  // namespace
}  // namespace millstream::kernels
