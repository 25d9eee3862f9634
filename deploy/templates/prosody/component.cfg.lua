
-- A component inherits only few of the global modules: the others take effect only if they are named here again.
Component "$domain"
	component_secret = "$secret"
	modules_enabled = { "fedmesh_allow", "fedmesh_bidi", "s2s_smacks_timeout" }
