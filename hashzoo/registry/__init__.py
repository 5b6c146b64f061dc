"""Find by name what plugins offer and build it; digest its code; load saved methods; write a new plugin's scaffold."""
