"""False verdicts under the null: two identical arms, tuned and compared many times over."""
