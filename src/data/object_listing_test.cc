// SPDX-License-Identifier: Apache-2.0
#include "data/object_listing.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

TEST(MatchesPatternTest, IsAsOnTheDisk) {
  struct Case {
    const char* pattern;
    const char* path;
    bool matches;
  };
  for (const Case& one : {
           Case{"s3://b/*.csv", "s3://b/x.csv", true},
           Case{"s3://b/*.csv", "s3://b/d/x.csv", false},
           Case{"s3://b/*.csv", "s3://b/.x.csv", false},
           Case{"s3://b/?[0-9]", "s3://b/a1", true},
           Case{"s3://b/?[0-9]", "s3://b/1a", false},
           Case{"s3://b/**/x", "s3://b/x", true},
           Case{"s3://b/**/x", "s3://b/c/d/x", true},
           Case{"s3://b/**/x", "s3://b/_c/d/x", false},
           Case{"s3://b/**/x", "s3://b/c/d/xy", false},
           Case{"s3://b/**", "s3://b/c/x", true},
           Case{"s3://b/**", "s3://b/c/_x", false},
           Case{"s3://b/**", "s3://b/c.millstream/x", false},
           Case{"s3://b/*/x", "s3://b/x", false},
       }) {
    EXPECT_EQ(MatchesPattern(one.pattern, one.path), one.matches) << one.pattern << " " << one.path;
  }
}

}  // namespace
}  // namespace millstream
