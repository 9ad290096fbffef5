// SPDX-License-Identifier: Apache-2.0
#include "job/breaker.h"

#include <gtest/gtest.h>

#include "engine/engine.h"

namespace millstream {
namespace {

JobSpec SpecWithModel() {
  JobSpec spec;
  spec.steps.emplace_back().body = GenerateSpec{};
  return spec;
}

// Rows that end one after the other: with an error's code, or "" for ok.
Status Feed(
    Breaker& breaker, const std::string& code, int count, const std::string& step = "answer"
) {
  for (int i = 0; i < count; ++i) {
    FinishedRows rows;
    rows.batch.rows.push_back({{0, i + 1}, 0, i});
    if (!code.empty()) {
      rows.status = RowStatus::kError;
      rows.errors.push_back({step, code, "as told"});
    }
    MS_RETURN_NOT_OK(breaker.Count(rows));
  }
  return Status::OK();
}

class BreakerTest : public testing::Test {
 protected:
  BreakerTest() { snapshot_.files.emplace_back().name = "rows.jsonl"; }
  JobSpec spec_ = SpecWithModel();
  Snapshot snapshot_;
};

TEST_F(BreakerTest, StopsWhenTheFirstRowsAllFailWithOneCode) {
  Breaker breaker(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(breaker, "engine_failed", 49).ok());
  const Status tripped = Feed(breaker, "engine_failed", 1);
  EXPECT_TRUE(IsEngineBroken(tripped)) << tripped;
  EXPECT_NE(
      tripped.message().find("the first 50 rows all failed with engine_failed"), std::string::npos
  );
  EXPECT_NE(tripped.message().find("rows.jsonl:1 engine_failed: as told"), std::string::npos);
}

TEST_F(BreakerTest, OneGoodRowOrAnotherCodeIsNoFaultOfTheWholeJob) {
  Breaker good(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(good, "", 1).ok());
  EXPECT_TRUE(Feed(good, "engine_failed", 199).ok());
  Breaker mixed(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(mixed, "crash", 1).ok());
  EXPECT_TRUE(Feed(mixed, "engine_failed", 198).ok());
}

TEST_F(BreakerTest, StopsWhenTooManyOfTheWindowFail) {
  Breaker breaker(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(breaker, "", 5000).ok());
  EXPECT_TRUE(Feed(breaker, "engine_failed", 200).ok());
  EXPECT_TRUE(IsEngineBroken(Feed(breaker, "engine_failed", 1)));
}

TEST_F(BreakerTest, FailuresThatLeftTheWindowDoNotCount) {
  Breaker breaker(spec_, snapshot_, nullptr);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(Feed(breaker, "", 900).ok());
    EXPECT_TRUE(Feed(breaker, "engine_failed", 100).ok());
  }
}

TEST_F(BreakerTest, ErrorsOfDataNeverCount) {
  Breaker breaker(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(breaker, "context_overflow", 5000).ok());
  EXPECT_TRUE(Feed(breaker, "bad_json", 5000).ok());
  EXPECT_EQ(breaker.num_counted(), 0);
}

TEST_F(BreakerTest, RowsThatAreBlamedAlreadyDoNotCount) {
  BlamedRows blamed;
  for (int record = 1; record <= 60; ++record) {
    ResultKey key;
    key.row = {0, record};
    key.step = "answer";
    blamed.Note({EntryType::kPoison, 1, PoisonOf(key, {})});
  }
  Breaker breaker(spec_, snapshot_, &blamed);
  EXPECT_TRUE(Feed(breaker, "crash", 60).ok());
  EXPECT_EQ(breaker.num_counted(), 0);
}

TEST_F(BreakerTest, RowsThatWorkersDiedOfDoNotCount) {
  Breaker breaker(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(breaker, "crash", 5000, "read").ok());
  EXPECT_EQ(breaker.num_counted(), 0);
}

TEST_F(BreakerTest, TheSpecSetsTheLimitsOrTurnsItOff) {
  spec_.breaker = {.is_on = true, .first = 3, .window = 10, .share = ErrorLimit{50, true}};
  Breaker first(spec_, snapshot_, nullptr);
  EXPECT_TRUE(IsEngineBroken(Feed(first, "crash", 3)));
  Breaker share(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(share, "", 10).ok());
  EXPECT_TRUE(Feed(share, "crash", 5).ok());
  EXPECT_TRUE(IsEngineBroken(Feed(share, "crash", 1)));
  spec_.breaker.is_on = false;
  Breaker off(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(off, "crash", 5000).ok());
}

TEST_F(BreakerTest, AJobsOwnLimitOfErrorsIsNotBelowIt) {
  spec_.max_errors = ErrorLimit{60, true};
  Breaker breaker(spec_, snapshot_, nullptr);
  EXPECT_TRUE(Feed(breaker, "", 1000).ok());
  EXPECT_TRUE(Feed(breaker, "engine_failed", 600).ok());
  EXPECT_TRUE(IsEngineBroken(Feed(breaker, "engine_failed", 1)));
}

}  // namespace
}  // namespace millstream
