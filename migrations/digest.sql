-- Every object that must be the same on all nodes: its kind, its name and all that defines it, a row each.
WITH space AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), relation AS (
    SELECT c.*, format('%s.%s', s.nspname, c.relname) AS name FROM pg_class c JOIN space s ON s.oid = c.relnamespace
), own_column AS (
    SELECT r.name AS relation, a.*, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS position
      FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid
     WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped
)
SELECT 'schema' AS kind, s.nspname::text AS name, concat('owner ', pg_get_userbyid(n.nspowner)) AS definition
  FROM space s JOIN pg_namespace n USING (oid)
UNION ALL
SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE relkind::text END, name,
       concat_ws(', ', 'owner ' || pg_get_userbyid(relowner), 'persistence ' || relpersistence::text,
                 'replica identity ' || relreplident::text, 'row security ' || relrowsecurity,
                 'options ' || array_to_string(ARRAY(SELECT unnest(reloptions) ORDER BY 1), ' '),
                 CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END)
  FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
SELECT 'column', concat(relation, '.', attname),
       concat_ws(', ', '#' || position, format_type(atttypid, atttypmod),
                 CASE WHEN attnotnull THEN 'not null' END,
                 'default ' || (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                 WHERE adrelid = attrelid AND adnum = attnum),
                 CASE WHEN attidentity <> '' THEN 'identity ' || attidentity::text END,
                 CASE WHEN attgenerated <> '' THEN 'generated ' || attgenerated::text END,
                 'collate ' || (SELECT collname FROM pg_collation WHERE oid = attcollation))
  FROM own_column
UNION ALL
SELECT 'constraint', concat(r.name, '.', conname),
       concat(pg_get_constraintdef(c.oid), CASE WHEN convalidated THEN '' ELSE ' (not validated)' END)
  FROM pg_constraint c JOIN relation r ON r.oid = c.conrelid WHERE contype <> 'n'
UNION ALL
SELECT 'index', r.name,
       concat(pg_get_indexdef(i.indexrelid), CASE WHEN indisvalid AND indisready THEN '' ELSE ' (invalid)' END)
  FROM pg_index i JOIN relation r ON r.oid = i.indexrelid
UNION ALL
SELECT 'trigger', concat(r.name, '.', tgname), concat(pg_get_triggerdef(t.oid), ', enabled ', tgenabled)
  FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT 'function', format('%s.%s(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
       concat('owner ', pg_get_userbyid(proowner), ', ', pg_get_functiondef(p.oid))
  FROM pg_proc p JOIN space s ON s.oid = p.pronamespace WHERE p.prokind IN ('f', 'p')
UNION ALL
SELECT 'type', format('%s.%s', s.nspname, t.typname),
       concat_ws(', ', t.typtype, (SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum
                                    WHERE enumtypid = t.oid),
                 CASE WHEN typbasetype <> 0 THEN format_type(typbasetype, typtypmod) END)
  FROM pg_type t JOIN space s ON s.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
UNION ALL
SELECT 'policy', concat(r.name, '.', polname),
       concat_ws(', ', polcmd, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
  FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
UNION ALL
SELECT 'extension', extname::text, extversion FROM pg_extension
UNION ALL
SELECT 'grant', concat(on_what, ' to ', coalesce(nullif(grantee, 0)::regrole::text, 'public')),
       string_agg(concat(privilege_type, CASE WHEN is_grantable THEN '*' END), ' ' ORDER BY privilege_type)
  FROM (SELECT concat('schema ', nspname) AS on_what, acl.*
          FROM pg_namespace n JOIN space s USING (oid, nspname), aclexplode(n.nspacl) acl
        UNION ALL
        SELECT name, acl.* FROM relation, aclexplode(coalesce(relacl, acldefault('r', relowner))) acl
         WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT concat('column ', relation, '.', attname), acl.* FROM own_column, aclexplode(attacl) acl
        UNION ALL
        SELECT format('function %s.%s(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), acl.*
          FROM pg_proc p JOIN space s ON s.oid = p.pronamespace,
               aclexplode(coalesce(proacl, acldefault('f', proowner))) acl) granted
 GROUP BY on_what, grantee
