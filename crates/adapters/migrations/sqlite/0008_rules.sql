-- The names of the rules that matched at the last look. A ledger from before learns them at its next full scan.
ALTER TABLE images ADD COLUMN rules TEXT NOT NULL DEFAULT '[]';
